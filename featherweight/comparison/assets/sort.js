"use strict";
// Clicking a header sorts its table: numbers by value, missing cells last in both directions.

// A cell's sort key: data-key if present (a number, or empty if missing), else its text.
const keyOf = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.key === undefined ? cell.textContent.trim() : cell.dataset.key;
};

const compare = (one, other, direction) => {
  if (one === "" || other === "") return (one === "") - (other === "");
  const difference = Number(one) - Number(other);
  if (!Number.isNaN(difference)) return direction * difference;
  return direction * one.localeCompare(other, undefined, { numeric: true });
};

const sortBy = (header) => {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");

  const body = header.closest("table").tBodies[0];
  const direction = ascending ? 1 : -1;
  const column = header.cellIndex;
  const rows = [...body.rows];
  rows.sort((one, other) => compare(keyOf(one, column), keyOf(other, column), direction));
  body.append(...rows);
};

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
