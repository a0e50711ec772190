/**
 * What a model of flat pictures answers, in the one form in which this page reads it; `objects` of
 * an answer are its steps, in their order.
 */

/**
 * What `GET /model` says of any model, with the names by which this page calls it.
 *
 * @param report its JSON.
 */
export function readModel(report) {
  if (report.kind !== "2d") return report;
  const { model, side, greatest_count: most } = report;
  return { ...model, kind: "2d", input: { width: side, height: side }, count_max: most, evaluation: null, card: null };
}

/**
 * Reads an answer of `POST /infer?drawn=true`.
 *
 * @param answer its JSON.
 * @returns {{count: number, probabilities: number[], steps: Object[], picture: string|null}} a step
 *   has a `score`, a `window` in px of the picture that was sent, and its own `picture`; pictures
 *   are `data:` addresses.
 */
export function readFlat(answer) {
  return {
    count: answer.count.value,
    probabilities: answer.count.probabilities,
    steps: answer.objects.map((item) => ({
      score: item.score,
      window: item.bbox2d,
      picture: pictureOf(item.drawn),
    })),
    picture: pictureOf(answer.drawn),
  };
}

/** A PNG in base64 as an address that an image can show. */
const pictureOf = (base64) => (base64 ? `data:image/png;base64,${base64}` : null);
