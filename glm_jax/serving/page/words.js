// A sentence as words, and blanks as runs of them.
//
//   "the light, he" -> the| |light|,| |he     blanked {light, he}: two blanks; {the, light}: one, "the light"

const LETTERS = /[\p{L}\p{N}]/u;

// [{text, word}] which joined are the text. `cuts`: indices at which a new segment begins in any case.
export function segments(text, cuts = []) {
  const found = [];
  for (const { segment, isWordLike, index } of parts(text)) {
    const inside = cuts.filter((cut) => cut > index && cut < index + segment.length).map((cut) => cut - index);
    let begin = 0;
    for (const end of [...inside.sort((a, b) => a - b), segment.length]) {
      found.push({ text: segment.slice(begin, end), word: isWordLike });
      begin = end;
    }
  }
  return found;
}

function parts(text) {
  if (typeof Intl.Segmenter === "function") {
    const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
    return [...segmenter.segment(text)].map((one) => ({ ...one, isWordLike: Boolean(one.isWordLike) || LETTERS.test(one.segment) }));
  }
  return [...text.matchAll(/[\p{L}\p{N}\p{M}'’]+|[^\p{L}\p{N}]+/gu)].map((match) => ({
    segment: match[0], index: match.index, isWordLike: LETTERS.test(match[0]),
  }));
}

// The runs of blanked words with nothing but white space between them: [{start, end}], both inclusive.
export function runs(words, blanked) {
  const found = [];
  words.forEach((one, index) => {
    if (!blanked.has(index)) return;
    const last = found.at(-1);
    const between = last && words.slice(last.end + 1, index);
    if (last && between.every((part) => part.text.trim() === "")) last.end = index;
    else found.push({ start: index, end: index });
  });
  return found;
}

// "The [dog] ran" -> {text: "The dog ran", blanks: [[4, 7]]}
export function example(marked) {
  let text = "";
  const blanks = [];
  for (const part of marked.split(/(\[[^\]]*\])/)) {
    if (part.startsWith("[")) {
      blanks.push([text.length, text.length + part.length - 2]);
      text += part.slice(1, -1);
    } else text += part;
  }
  return { text, blanks };
}

export const chinese = (text) => /[\u3400-\u9fff]/.test(text);
