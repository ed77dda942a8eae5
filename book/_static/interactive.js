/* Put a Plotly chart in the place of each drawing that has one; see alexnet/report/interactive.py. */
document.addEventListener("DOMContentLoaded", () => {
  let plotly = null;
  const load = () => plotly ||= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "_static/plotly.min.js";
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });
  const style = document.createElement("style");
  style.textContent = "figure .chart { width: 100%; text-align: start; } figure img.replaced { display: none !important; }" +
    ".controls { margin: 0 0 1.5rem; padding: .5rem .9rem; border: 1px solid var(--pst-color-border); border-radius: .3rem; }" +
    ".controls label { display: inline-block; max-width: 100%; margin: .2rem 1rem .2rem 0; }" +
    ".controls select { width: 34rem; max-width: 100%; } .controls svg, .controls canvas { max-width: 100%; height: auto; }" +
    ".controls input[type=range] { width: 9rem; vertical-align: middle; } .controls input[type=number] { width: 6rem; }" +
    ".controls output { display: block; margin: .4rem 0; } @media print { .controls { display: none !important; } }" +
    "@media print { figure .chart { display: none; } figure img.on-light.replaced { display: inline !important; } }";
  document.head.append(style);
  const isDark = () => document.documentElement.dataset.theme === "dark";
  const coloured = (source) => {
    const chart = JSON.parse(source);
    if (!isDark()) return chart;
    const partner = (text) => text.replace(/#[0-9a-f]{6}\b/g, (colour) => chart.dark[colour] ?? colour);
    return JSON.parse(partner(JSON.stringify({data: chart.data, layout: chart.layout})));
  };
  const draw = async (script) => {
    const figure = document.getElementById(script.dataset.figure);
    const pictures = [...figure.querySelectorAll("img")];
    await load();
    const place = document.createElement("div");
    place.className = "chart";
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", pictures[0].alt);
    const chart = coloured(script.textContent);
    pictures[0].before(place);
    await Plotly.newPlot(place, chart.data, chart.layout, {responsive: true, displayModeBar: false});
    pictures.forEach((picture) => picture.classList.add("replaced"));
    new MutationObserver(() => {
      const again = coloured(script.textContent);
      Plotly.react(place, again.data, again.layout);
    }).observe(document.documentElement, {attributeFilter: ["data-theme"]});
  };
  const near = new IntersectionObserver((seen) => seen.filter((one) => one.isIntersecting).forEach((one) => {
    near.unobserve(one.target);
    draw(one.target.script).catch(() => {}); // the drawing stays
  }), {rootMargin: "600px"});
  document.querySelectorAll("script.chart").forEach((script) => {
    const figure = document.getElementById(script.dataset.figure);
    figure.script = script;
    near.observe(figure);
  });
});
