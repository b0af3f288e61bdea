// Filters the list of claims, opens the claim that a link names, and loads the studies' charts.

const filters = document.getElementById("filters");
const items = [...document.querySelectorAll("#list li")];

function filter() {
  const wanted = Object.fromEntries(new FormData(filters));
  const words = wanted.words.trim().toLowerCase().split(/\s+/);
  let count = 0;
  for (const item of items) {
    const fits = ["topic", "source", "verdict", "dataset"].every((name) => !wanted[name] || item.dataset[name] === wanted[name]);
    const text = item.textContent.toLowerCase();
    item.hidden = !(fits && words.every((word) => text.includes(word)));
    count += !item.hidden;
  }
  document.getElementById("shown").textContent =
    count ? `${count} of ${items.length} verdicts are shown.` : "No verdict fits these filters.";
}

filters.addEventListener("input", filter);
filters.addEventListener("reset", () => setTimeout(filter));
filters.addEventListener("submit", (event) => event.preventDefault());
filter();

// Shows the charts inside an element. They are decoded only now, so the page opens quickly.
function showPictures(inside) {
  for (const image of inside.querySelectorAll("img[data-picture]:not([src])")) {
    const picture = document.querySelector(`script[data-picture="${CSS.escape(image.dataset.picture)}"]`);
    if (picture) image.src = picture.textContent;
    else image.hidden = true; // left out, and linked
  }
}

document.addEventListener("toggle", (event) => event.target.open && showPictures(event.target), true);

// Opens the claim or study that the address names.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const details = target.closest("details");
  if (details) {
    details.open = true;
    showPictures(details);
  }
  target.scrollIntoView();
  (target.matches("details") ? target.querySelector("summary") : target).focus({ preventScroll: true });
}

window.addEventListener("hashchange", openTarget);
document.addEventListener("click", (event) => {
  // A link to the present address changes nothing, but its claim may have been closed since.
  if (event.target.closest?.("a")?.hash === location.hash && location.hash) setTimeout(openTarget);
});
for (const [id, open] of [["open-all", true], ["close-all", false]])
  document.getElementById(id).addEventListener("click", () => {
    for (const claim of document.querySelectorAll("details.claim")) claim.open = open;
  });
openTarget();
