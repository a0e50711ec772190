/**
 * The server, by its public HTTP interface alone, and how the page speaks with it when it is slow,
 * full, gone, or asks for a key.
 */

const BASE = "v1/"; // relative: the page may lie behind a proxy's prefix
const KEY = "airscene-key";
const PATIENCE = 60_000; // ms, for which a request that can wait is asked again
const PAUSE = 1000; // ms, between two questions when the server names no time

/** Why a request has no answer; `message` is for people. */
export class ServiceError extends Error {
  /**
   * @param {string} kind the problem's name (`busy`, `not-an-image`, …), or `gone`.
   * @param {string} title what happened, in a few words.
   * @param {string} detail what is wrong and how to mend it.
   * @param {number|null} wait ms after which asking again makes sense; null when it does not.
   */
  constructor(kind, title, detail, wait = null) {
    super(detail);
    Object.assign(this, { kind, title, detail, wait });
  }
}

/** Tells of `state`: `ok`, `busy`, `gone` or `key`, with words that say more. */
export const link = new EventTarget();
const waiting = new Set(); // requests that will be asked again

function become(state, words) {
  // That one request is answered says nothing to who waits for another.
  if (state === "ok" && waiting.size) return;
  link.dispatchEvent(new CustomEvent("state", { detail: { state, words } }));
}

/** The API key, for as long as the page is open. */
export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/**
 * Asks the server.
 *
 * @param {string} path behind `/v1/`.
 * @param {{body?: BodyInit, type?: string, signal?: AbortSignal, patient?: boolean}} options
 *   `type`: of the body. `patient`: ask again while the server says that it is busy or starting,
 *   and while it is not there; without it that is an error at once.
 * @returns {Promise<Response>} with a good status.
 * @throws {ServiceError}
 */
export async function ask(path, { body, type, signal, patient = true } = {}) {
  const until = Date.now() + PATIENCE;
  const me = {};
  try {
    for (;;) {
      try {
        const response = await once(path, body, type, signal);
        waiting.delete(me);
        become("ok");
        return response;
      } catch (error) {
        if (!(error instanceof ServiceError)) throw error; // called off
        if (!patient || error.wait === null || Date.now() + error.wait > until) throw error;
        waiting.add(me);
        await new Promise((done) => setTimeout(done, error.wait));
        signal?.throwIfAborted();
      }
    }
  } finally {
    waiting.delete(me);
  }
}

/** The JSON of an answer; as `ask`. */
export const askJson = async (path, options) => (await ask(path, options)).json();

/** Waits for the model; `ask` with no limit to its patience. */
export async function whenReady(path) {
  for (;;) {
    try {
      return await askJson(path);
    } catch (error) {
      if (!(error instanceof ServiceError) || error.wait === null) throw error;
    }
  }
}

async function once(path, body, type, signal) {
  const headers = {};
  if (type) headers["Content-Type"] = type;
  if (key.get()) headers["X-API-Key"] = key.get();
  let response;
  try {
    response = await fetch(BASE + path, { method: body ? "POST" : "GET", body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    become("gone", "no connection");
    throw new ServiceError(
      "gone",
      "The server does not answer",
      "Is it still running, and are you on its network? The page goes on by itself when it is back.",
      PAUSE,
    );
  }
  if (response.ok) return response;
  const error = await problemOf(response);
  become(...({ 401: ["key", "needs a key"], 503: ["busy", error.kind === "not-ready" ? "starting" : "busy"] }[
    response.status
  ] ?? ["ok"]));
  throw error;
}

async function problemOf(response) {
  const after = Number(response.headers.get("Retry-After"));
  const passes = response.status === 503 || response.status === 429;
  const wait = passes ? (after > 0 ? 1000 * after : PAUSE) : null;
  try {
    const { type, title, detail } = await response.json();
    return new ServiceError(type.split(":").pop(), title, detail, wait);
  } catch {
    // Not ours: a proxy's page, for one.
    return new ServiceError(
      "foreign",
      `The answer has status ${response.status}`,
      "It is not from this service; a proxy between may have refused the request.",
      wait,
    );
  }
}
