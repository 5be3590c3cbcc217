// Returns the visible texts whose contrast with what lies behind them is below WCAG 2.2, success criterion 1.4.3 (AA).
function channels(text) {
  const found = text.match(/[\d.]+/g).map(Number);
  return found.length === 3 ? [...found, 1] : found;
}
function luminance([red, green, blue]) {
  const line = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * line(red) + 0.7152 * line(green) + 0.0722 * line(blue);
}
function behind(element) {
  for (let here = element; here; here = here.parentElement) {
    const colour = channels(getComputedStyle(here).backgroundColor);
    if (colour[3] > 0) return colour;
  }
  return [255, 255, 255, 1];
}
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim();
  const element = walker.currentNode.parentElement;
  if (!text || !element.checkVisibility() || element.closest(".said, noscript, script, svg")) continue;
  const style = getComputedStyle(element);
  const pair = [luminance(channels(style.color)), luminance(behind(element))].sort((one, other) => other - one);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (large ? 3 : 4.5)) faint.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return faint;
