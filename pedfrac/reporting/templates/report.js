"use strict";
// Tables that sort by a click on a heading and can be copied into a spreadsheet; the page is whole
// without this.

function textOf(cell) {
  const copy = cell.cloneNode(true);
  for (const note of copy.querySelectorAll("sup")) note.remove();
  for (const bounds of copy.querySelectorAll(".ci")) bounds.textContent = ` (${bounds.textContent.trim()})`;
  return copy.textContent.replace(/\s+/g, " ").trim();
}

function keyOf(cell) {
  if (!cell || cell.dataset.v === "") return null;
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  const text = textOf(cell);
  const number = Number(text.replace(/[,\s]/g, "").replace("−", "-"));
  return text !== "" && !Number.isNaN(number) ? number : text;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // what is missing stays last
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, heading) {
  const column = heading.cellIndex;
  const rising = heading.getAttribute("aria-sort") === "descending" || !heading.hasAttribute("aria-sort");
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
  rows.sort((a, b) => compare(a[0], b[0], rising ? 1 : -1));
  body.append(...rows.map(([, row]) => row));
}

function makeSortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    if (heading.tagName !== "TH") continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, heading));
  }
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea"); // where a page has no leave to the clipboard
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

function makeCopyable(frame, table) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy table: ${table.caption.textContent.trim()}`);
  button.addEventListener("click", async () => {
    const rows = [...table.rows].map((row) => [...row.cells].map(textOf).join("\t"));
    await write(rows.join("\n"));
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  frame.prepend(button);
}

for (const frame of document.querySelectorAll(".table")) {
  const table = frame.querySelector("table");
  if (!frame.matches(".plain") && table.tBodies[0].rows.length > 1) makeSortable(table);
  makeCopyable(frame, table);
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
