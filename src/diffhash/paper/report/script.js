"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  const decodeBytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const decode = (column) =>
    typeof column === "string" ? new Float32Array(decodeBytes(column).buffer) : column;
  // plotly.js and the plots' data are in the page as base64 of gzip.
  const unpack = (script) => new Response(new Blob([decodeBytes(script.textContent)]).stream()
    .pipeThrough(new DecompressionStream("gzip"))).text();

  // "{control}" becomes what is chosen, "--name" the colour of that name.
  const fill = (text, words) => text.replace(/\{(\w+)\}/g, (all, name) => words[name] ?? all);
  const resolve = (value, words) => {
    if (typeof value === "string") return value.startsWith("--") ? css(value) : fill(value, words);
    if (Array.isArray(value)) return value.map((item) => resolve(item, words));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, words)]));
  };

  const axisBase = () => ({
    gridcolor: css("--line"), linecolor: css("--muted"), tickcolor: css("--line"), showline: true,
    zeroline: false, ticks: "outside", ticklen: 4, automargin: true, title: { standoff: 6 },
  });
  const layoutBase = (narrow) => ({
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11.5 : 13, color: css("--text") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    margin: { l: narrow ? 8 : 56, r: narrow ? 8 : 16, t: 30, b: 44 },
    hovermode: "closest", dragmode: coarse ? false : "zoom",
    hoverlabel: { bgcolor: css("--surface"), bordercolor: css("--muted"), font: { color: css("--text") }, namelength: -1 },
    modebar: { color: css("--muted"), activecolor: css("--accent"), bgcolor: "rgba(0,0,0,0)" },
  });
  const config = {
    responsive: true, displaylogo: false, displayModeBar: coarse ? true : "hover",
    // Named one by one: among plotly's own there is one that uploads the plot.
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  };

  class Plot {
    constructor(figure) {
      this.figure = figure;
      this.canvas = figure.querySelector(".canvas");
    }

    async load() {
      this.plot = JSON.parse(await unpack(this.figure.querySelector("script")));
      for (const trace of this.plot.traces)
        for (const name in trace.columns) trace.columns[name] = decode(trace.columns[name]);
      this.figure.querySelectorAll("input").forEach((input) => input.addEventListener("change", () => this.draw()));
    }

    chosen() {
      const values = {};
      for (const { name } of this.plot.controls) {
        const inputs = this.figure.querySelectorAll(`input[name="${this.figure.id}:${name}"]:checked`);
        values[name] = Array.from(inputs, (input) => input.value);
      }
      return values;
    }

    draw() {
      const chosen = this.chosen();
      const words = {}, labels = {};
      for (const { name, many, options } of this.plot.controls) {
        if (many) continue;
        words[name] = chosen[name][0];
        const option = options.find(({ value }) => value === words[name]);
        labels[name] = option?.title || option?.label || "";
      }
      const traces = [];
      for (const { when, columns, x, y, style } of this.plot.traces) {
        if (!Object.entries(when).every(([name, value]) => chosen[name].includes(value))) continue;
        const [xs, ys] = [columns[fill(x, words)], columns[fill(y, words)]];
        if (!xs || !ys) continue;
        traces.push({
          hovertemplate: "%{x:.4g}, %{y:.4g}<extra>%{fullData.name}</extra>",
          ...resolve(style, labels), x: xs, y: ys, ...(columns.text && { text: columns.text }),
        });
      }
      const layout = { ...layoutBase(this.canvas.clientWidth < 520), ...resolve(this.plot.layout, labels) };
      for (const key of Object.keys(layout)) {
        if (!/^[xy]axis/.test(key)) continue;
        const base = axisBase();
        layout[key] = { ...base, ...layout[key], title: { ...base.title, ...layout[key].title } };
      }
      layout.uirevision = JSON.stringify(words); // a zoom outlives a change of theme or models
      if (!traces.length)
        layout.annotations = [{ text: "nothing to show", xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false }];
      return Plotly.react(this.canvas, traces, layout, config).then(() => { this.figure.dataset.drawn = traces.length; });
    }
  }

  const plots = Array.from(document.querySelectorAll("figure.plot"), (figure) => new Plot(figure));
  const drawAll = () => plots.reduce((before, plot) => before.then(() => new Promise((next) =>
    requestAnimationFrame(() => plot.draw().then(next, next)))), Promise.resolve());

  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `${button.textContent} theme`); };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("diffhash-theme", root.dataset.theme); } catch { /* private mode */ }
    name();
    drawAll();
  });
  dark.addEventListener("change", () => { name(); drawAll(); });
  name();

  const links = new Map(Array.from(document.querySelectorAll("nav a"), (a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  links.forEach((_, id) => { const target = document.getElementById(id); if (target) seen.observe(target); });

  const plotly = unpack(document.getElementById("plotly")).then((text) => {
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  });
  Promise.all([plotly, ...plots.map((plot) => plot.load())]).then(drawAll).then(() => { root.dataset.ready = "yes"; });
})();
