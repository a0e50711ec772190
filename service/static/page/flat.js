/**
 * What a model of flat pictures answers, in the one form in which this page reads it.
 *
 * A step found an object when its presence is at least one half; `objects` of an answer are such
 * steps, in their order.
 */

/**
 * Reads an answer of `POST /infer`.
 *
 * @param answer its JSON.
 * @returns {{count: number, probabilities: number[], steps: {label: string|null, score: number,
 *   window: {x: number, y: number, width: number, height: number}, picture: string|null}[],
 *   picture: string|null}} windows in px of the picture that was sent; pictures as `data:` addresses.
 */
export function readFlat(answer) {
  return {
    count: answer.count.value,
    probabilities: answer.count.probabilities,
    steps: answer.objects.map((item) => ({
      label: item.class_id ?? null,
      score: item.score,
      window: item.window,
      picture: pictureOf(item.reconstruction),
    })),
    picture: pictureOf(answer.reconstruction),
  };
}

/** A PNG in base64 as an address that an image can show. */
const pictureOf = (base64) => (base64 ? `data:image/png;base64,${base64}` : null);
