// Draws every figure, keeps it as wide as its place, and opens what is folded before printing.
const options = {
  displaylogo: false,
  displayModeBar: "hover",
  responsive: true,
  plotlyServerURL: "",
  showSendToCloud: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendDataToCloud", "sendChartToCloud"], // data stay here
  toImageButtonOptions: { format: "svg" },
};
const plots = [...document.querySelectorAll("[data-spec]")];
function draw(holder) {
  const spec = JSON.parse(document.getElementById(holder.dataset.spec).textContent);
  return Plotly.newPlot(holder, spec.data, spec.layout, options);
}
Promise.all(plots.map(draw)).then(() => { document.body.dataset.drawn = plots.length; });
const fit = () => plots.forEach((holder) => Plotly.Plots.resize(holder));
document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", fit));
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  plots.forEach((holder) => Plotly.relayout(holder, { width: holder.closest(".narrow") ? 470 : 670 })); // what A4 has
});
addEventListener("afterprint", () => {
  plots.forEach((holder) => Plotly.relayout(holder, { width: null, autosize: true }));
});
