// The chart of records per second: drawn from what the live part of the page brings along.
"use strict";

(() => {
  const MINUTES_S = 300;
  const HEIGHT = 200;
  const box = document.getElementById("chart");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let chart = null;
  let drawn = "";

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function made(topics, places) {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "12px system-ui, sans-serif" };
    return new uPlot(
      {
        width: box.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        select: { show: false },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
        scales: {
          x: { range: (_plot, _low, high) => [high - MINUTES_S, high] },
          y: { range: (_plot, _low, high) => [0, Math.max(1, high * 1.1)] },
        },
        axes: [
          { ...axis, values: (_plot, ticks) => ticks.map((t) => new Date(t * 1e3).toISOString().slice(11, 16)), incrs: [60], space: 40, size: 30 },
          { ...axis, size: 56, values: (_plot, ticks) => ticks.map((t) => t.toLocaleString("en")) },
        ],
        series: [
          {},
          ...topics.map((topic) => ({
            label: topic,
            stroke: colour(`--series-${places.indexOf(topic) % 14}`),
            width: 2,
            points: { show: false },
          })),
        ],
      },
      [[], ...topics.map(() => [])],
      box,
    );
  }

  function draw() {
    const source = document.getElementById("rates");
    if (!box || !source) return;
    const [times, rates] = JSON.parse(source.dataset.rates);
    const places = JSON.parse(source.dataset.topics);
    const topics = Object.keys(rates);
    const wanted = `${topics.join("\n")}|${dark.matches}`;
    if (!chart || drawn !== wanted) {
      if (chart) chart.destroy();
      chart = made(topics, places);
      drawn = wanted;
    }
    box.dataset.points = times.length;
    chart.setData([times.length ? times : [Date.now() / 1e3], ...topics.map((topic) => rates[topic])]);
  }

  document.addEventListener("htmx:afterSettle", draw);
  dark.addEventListener("change", draw);
  if (box) new ResizeObserver(() => chart && chart.setSize({ width: box.clientWidth, height: HEIGHT })).observe(box);
  draw();
})();
