theme();
scores();
all("#study table").forEach(sortable);
for (const section of all(".exhibit")) {
  const exhibit = content.exhibits[section.dataset.index];
  // Charts take their size from the page, so it has to be there first.
  one(".drawn", section).hidden = false;
  slide(one(".slide", section), exhibit);
  maps(one(".maps", section), exhibit);
  spectra(one(".spectra", section), exhibit);
  power(one(".power", section), exhibit);
}
root.dataset.ready = "yes";
