/* Entries that could not be read, each with the reason. */
"use strict";

fill("broken", page.broken.length ? table("Entries with a fault", [
  { head: "Folder", row: true, cell: ([folder]) => nameOf(folder) },
  { head: "What is wrong", cell: ([, reason]) => el("p", { class: "said", dir: "auto" }, reason.slice(0, 2000)) },
], page.broken) : el("p", {}, "None: every entry could be read."));
