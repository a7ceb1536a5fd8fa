"use strict";
(() => {
  const data = JSON.parse(document.getElementById("soft-rows").textContent);
  const slider = document.getElementById("temperature");
  if (!slider) return;
  const shown = document.getElementById("temperature-shown");

  const floats = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  };
  const rows = data.rows.map((row) => ({ logits: floats(row.logits), counts: row.counts }));

  // exp((z - max) / T) over the sum, in which a value counts as often as it has classes
  const softmax = ({ logits, counts }, T) => {
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const parts = logits.map((z) => Math.exp((z - most) / T));
    const sum = parts.reduce((total, part, i) => total + part * (counts ? counts[i] : 1), 0);
    return parts.map((part) => part / sum);
  };
  const sigmoid = ({ logits }, T) => logits.map((z) => 1 / (1 + Math.exp(-z / T)));
  // of the classes that are not shown: 1 less the others would have no digits where it is small
  const others = (q, { counts }, from) =>
    q.slice(from).reduce((sum, part, i) => sum + part * (counts ? counts[from + i] : 1), 0);
  const temper = data.link === "sigmoid" ? sigmoid : softmax;
  const written = (q) => (q >= 0.00005 || q === 0 ? q.toFixed(4) : q.toExponential(0));

  const cards = [...document.querySelectorAll("[data-row]")].map((card) => ({
    row: rows[Number(card.dataset.row)],
    lines: [...card.querySelectorAll("tbody tr")],
  }));
  const show = () => {
    const T = data.temperatures[Number(slider.value)];
    shown.value = `T = ${T}`;
    slider.setAttribute("aria-valuetext", `T = ${T}`);
    for (const { row, lines } of cards) {
      const q = temper(row, T);
      lines.forEach((line, i) => {
        const value = line.classList.contains("others") ? others(q, row, i) : q[i];
        line.style.setProperty("--share", value);
        line.querySelector(".number").textContent = written(value);
      });
    }
  };
  slider.disabled = false;
  slider.addEventListener("input", show);
  show();
})();
