// What htmx leaves to us: tokens, JSON both ways, errors beside their fields, and quiet refreshes.
"use strict";

(() => {
  const LIVE = "live";

  // Each request that changes something shows that it comes from this page.
  document.addEventListener("htmx:configRequest", (event) => {
    const token = document.querySelector('meta[name="csrf-token"]').content;
    if (token) event.detail.headers["X-CSRF-Token"] = token;
  });

  // A page that nobody sees is not refreshed, and one that is seen again is at once.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.id === LIVE && document.hidden) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });

  function refresh() {
    const live = document.getElementById(LIVE);
    if (live) htmx.trigger(live, "refresh");
  }

  // What people opened, began to use or drew stays as it is when the rest is renewed.
  if (window.Idiomorph) {
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
      !(name === "open" && node.tagName === "DETAILS") && !(name === "disabled" && node.classList.contains("htmx-request"));
    Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => node.id !== "chart";
  }

  // A button is off while it is at work, which takes the focus from it: it gets it back.
  let busy = null;
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.id !== LIVE) busy = document.activeElement;
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.elt.id !== LIVE && busy && document.activeElement === document.body) busy.focus();
  });

  // A button that is gone after the refresh hands the focus to what it was about.
  let focused = "";
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id === LIVE) focused = document.activeElement.id;
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target.id !== LIVE) return;
    const letter = focused.match(/^retry-(\d+)$/);
    if (letter && document.activeElement === document.body) {
      (document.getElementById(`summary-${letter[1]}`) || document.getElementById("dead-letters")).focus();
    }
  });

  // The server is gone, or back.
  const connection = document.getElementById("connection");
  let lost = false;
  function connected(yes, why) {
    if (!connection || lost === !yes) return;
    lost = !yes;
    connection.hidden = yes;
    connection.textContent = yes ? "" : `${why} What stands below is old; this page tries again every 2 s.`;
    document.body.classList.toggle("is-old", lost);
  }
  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, xhr, successful } = event.detail;
    if (elt.id !== LIVE) return;
    if (successful) connected(true);
    else if (xhr.status !== 401) connected(false, xhr.status ? `The worker answers ${xhr.status}.` : "The worker cannot be reached.");
  });

  // Forms are sent as JSON; a field that is left empty is left out.
  htmx.defineExtension("json-body", {
    onEvent: (name, event) => {
      if (name === "htmx:configRequest") event.detail.headers["Content-Type"] = "application/json";
      return true;
    },
    encodeParameters: (_xhr, _parameters, form) => {
      const body = {};
      for (const field of form.elements) {
        if (!field.name || field.value === "") continue;
        body[field.name] = "number" in field.dataset ? Number(field.value) : field.value;
      }
      return JSON.stringify(body);
    },
  });

  // JSON answers are told in a sentence.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, target } = event.detail;
    if (target.id === LIVE || "part" in target.dataset) return;
    const sender = event.detail.requestConfig.elt;
    const form = sender.closest("form");
    const answer = read(xhr);
    event.detail.shouldSwap = true;
    event.detail.isError = false;
    event.detail.serverResponse = told(answer, xhr.status, form).outerHTML;
    if ("retried" in answer) goOnBehind = answer.left ? answer.last : 0;
    if (sender.dataset.retry) setTimeout(refreshFresh, 0);
    if (xhr.status < 400 && ("renews" in sender.dataset || sender.querySelector("[data-renews]"))) setTimeout(renew, 0);
  });
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, (event) => {
      const { target, elt } = event.detail;
      if (elt.id === LIVE || !target || "part" in target.dataset) return;
      target.replaceChildren(paragraph("The worker cannot be reached. Try again.", "bad"));
    });
  }

  function refreshFresh() {
    const live = document.getElementById(LIVE);
    if (live) htmx.ajax("GET", "/ops/live?fresh=true", { source: live, target: live, swap: "morph:innerHTML" }).catch(() => {});  // said by what listens above
  }

  // Of many records some are tried at a time: the next press goes on behind them, past those that were refused.
  let goOnBehind = 0;
  function goOn() {
    const field = document.getElementById("retry-after");
    if (!field || !goOnBehind) return;
    field.value = goOnBehind;
    document.getElementById("retry-matching").textContent = "Retry the next";
  }

  // The part of a page that an answer has changed is asked for anew; who was on a button that is gone hears the answer.
  function renew() {
    const part = document.querySelector("[data-part]");
    if (!part) return;
    const was = document.activeElement.id;
    htmx
      .ajax("GET", location.pathname + location.search, { source: part, target: part, select: "[data-part]", swap: "outerHTML" })
      .then(goOn)
      .then(() => (document.activeElement === document.body ? document.getElementById(was) || document.getElementById("said") : null)?.focus())
      .catch(() => {});
  }

  function read(xhr) {
    try {
      return JSON.parse(xhr.responseText);
    } catch {
      return {};
    }
  }

  function told(answer, status, form) {
    const box = document.createElement("div");
    if (status >= 400) {
      const left = showFieldErrors(form, answer.errors || []);
      box.append(paragraph(left.length ? `${sentence(answer, status)} ${left.join("; ")}` : sentence(answer, status), "bad"));
      return box;
    }
    box.append(answer.outcome ? outcome(answer) : "retried" in answer ? tried(answer) : success(answer));
    if (Array.isArray(answer.lowStockItems)) box.append(items(answer.lowStockItems));
    return box;
  }

  function success(answer) {
    const well = answer.success !== false;
    return paragraph(answer.message || (well ? "Done." : "It did not work."), well ? "good" : "bad");
  }

  function outcome(answer) {
    const said = {
      applied: "applied: it is counted now.",
      duplicate: "a duplicate: all that it says was counted already.",
      refused: `refused again: ${answer.reason}`,
      dropped: "dropped: it stays here with its bytes and your reason.",
    };
    return paragraph(`Dead letter ${answer.id} is ${said[answer.outcome] || answer.outcome}`, answer.outcome === "refused" ? "bad" : "good");
  }

  function tried(answer) {
    const parts = [];
    for (const [name, said] of [["applied", "applied"], ["duplicate", "duplicates"], ["refused", "refused again"], ["gone", "taken by somebody else"]]) {
      if (answer[name]) parts.push(`${answer[name]} ${said}`);
    }
    const left = answer.left ? ` ${answer.left} behind them are left.` : "";
    return paragraph(`${answer.retried} tried${parts.length ? `: ${parts.join(", ")}` : ""}.${left}`, answer.refused ? "bad" : "good");
  }

  function sentence(answer, status) {
    if (status === 401) return "Your session has ended. Load the page anew to log in.";
    const said = answer.detail ? `${answer.detail[0].toUpperCase()}${answer.detail.slice(1)}.` : `The worker answered ${status}.`;
    return status === 429 ? `${said} Wait a little, then try again.` : said;
  }

  function items(found) {
    if (!found.length) return paragraph("No product is below its threshold.", "quiet");
    const table = document.createElement("table");
    table.className = "numbers";
    const head = table.createTHead().insertRow();
    for (const name of ["Product", "Stock", "Threshold"]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const item of found) {
      const row = body.insertRow();
      const named = item.name && item.name !== item.sku ? `${item.sku} (${item.name})` : item.sku;
      for (const value of [visible(named), item.stock, item.threshold]) row.insertCell().textContent = value;
    }
    const scrolls = document.createElement("div");
    scrolls.className = "scrolls";
    scrolls.tabIndex = 0;
    scrolls.setAttribute("role", "region");
    scrolls.setAttribute("aria-label", "Products found low");
    scrolls.append(table);
    return scrolls;
  }

  function paragraph(text, kind) {
    const made = document.createElement("p");
    made.className = kind;
    made.textContent = visible(text);
    return made;
  }

  function visible(text) {
    return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
  }

  // What is wrong with a field stands beside it.
  function showError(field, rule) {
    const place = document.getElementById(`${field.id}-error`);
    if (!place) return;
    place.textContent = visible(rule && `${label(field)} ${rule}`);
    if (rule) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }

  function label(field) {
    return field.labels[0].firstChild.textContent.trim();
  }

  function showFieldErrors(form, errors) {
    const left = [];
    let first = null;
    for (const { field: name, rule } of errors) {
      const field = form && name ? form.elements.namedItem(name) : null;
      if (field && document.getElementById(`${field.id}-error`)) {
        showError(field, rule);
        first = first || field;
      } else left.push(name ? `${name} ${rule}` : rule);
    }
    if (first) first.focus();
    return left;
  }

  let reporting = false;
  document.addEventListener(
    "invalid",
    (event) => {
      const field = event.target;
      if (!document.getElementById(`${field.id}-error`)) return;
      event.preventDefault();
      showError(field, field.validity.valueMissing ? "is required" : field.dataset.rule || `: ${field.validationMessage}`);
      if (!reporting) {
        reporting = true;
        field.focus();
        setTimeout(() => (reporting = false), 0);
      }
    },
    true,
  );
  document.addEventListener("input", (event) => {
    if (event.target.getAttribute("aria-invalid")) showError(event.target, "");
  });
})();
