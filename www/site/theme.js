/** The button for dark and light; without a choice the page follows the system. */

const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function show() {
  const chosen = localStorage.getItem("theme");
  const dark = chosen ? chosen === "dark" : system.matches;
  if (chosen) document.documentElement.dataset.theme = chosen;
  button.setAttribute("aria-pressed", String(dark));
}

button.addEventListener("click", () => {
  const dark = button.getAttribute("aria-pressed") === "true";
  localStorage.setItem("theme", dark ? "light" : "dark");
  show();
});
system.addEventListener("change", show);
show();
