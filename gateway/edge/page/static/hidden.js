// Characters that a person does not see and a model reads: the same as the gateway flags (`model/hidden_text.py`).

const HIDDEN = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u180b-\u180d\u180f\ufe00-\ufe0f\u{e0100}-\u{e01ef}\u{e0000}-\u{e007f}\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufff8\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0080}-\u{e00ff}\u{e01f0}-\u{e0fff}\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufff9-\ufffb]/u;
const JOINERS = '\u200c\u200d';
const EMOJI_SELECTORS = '\ufe0e\ufe0f';
const KEYCAP = '\u20e3';
const FLAGS = ['gbeng', 'gbsct', 'gbwls'].map((each) => ['\u{1f3f4}', ...[...`${each}\x7f`].map((letter) => String.fromCodePoint(0xe0000 + letter.codePointAt(0)))]);
const LONGEST = Math.max(...FLAGS.map((flag) => flag.length));

const isPicture = (character) => /[\p{So}\p{Sm}\p{Sk}]/u.test(character) && character > '\x7f';
const isJoined = (character) => character >= '\u0600' && character < '\u1100' && /[\p{L}\p{M}]/u.test(character);

/** Whether a script or a picture needs the character at a place. */
function isNeeded(text, at) {
  const character = text[at];
  const after = text[at + 1] || '';
  let before = text[at - 1] || '';
  if (EMOJI_SELECTORS.includes(character)) return before !== '' && (isPicture(before) || ('#*0123456789'.includes(before) && after === KEYCAP));
  if (JOINERS.includes(character)) {
    if (before && EMOJI_SELECTORS.includes(before)) before = text[at - 2] || '';
    return before !== '' && after !== '' && [before, after].every((each) => isPicture(each) || isJoined(each));
  }
  if (character >= '\u{e0020}' && character <= '\u{e007f}') {
    const start = text.lastIndexOf('\u{1f3f4}', at);
    return start >= 0 && start > at - LONGEST && FLAGS.some((flag) => flag.every((each, place) => text[start + place] === each));
  }
  return false;
}

/** Where what is hidden stands in a text, given as a list of its characters. */
export function hiddenPlaces(text) {
  const found = [];
  for (let at = 0; at < text.length; at += 1) if (HIDDEN.test(text[at]) && !isNeeded(text, at)) found.push(at);
  return found;
}
