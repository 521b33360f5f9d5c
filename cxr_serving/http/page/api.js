/** Requests to the service, and its errors in words. */

const KEY = "cxr-key";

export class Problem extends Error {
  constructor(text, status, request = null) {
    super(text);
    this.status = status;
    this.reference = request === null ? "" : ` Request ${request}.`;
  }
}

/** Send this key from now on, until the tab is closed. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The JSON answer; throws a Problem, or an AbortError once `options.signal` is aborted. */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      cache: "no-store",
      headers: key === null ? {} : { Authorization: `Bearer ${key}` },
    });
    if (answer.ok) return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer: it may be stopped, or the network down.", 0);
  }
  const body = await answer.json().catch(() => null);
  const wait = answer.headers.get("Retry-After");
  const { code = "", message = answer.statusText } = body?.error ?? {};
  const parts = [inPlainWords(answer.status, code, key !== null)];
  if (code === "image_rejected") parts.push(message);
  else if (message && answer.status !== 401) parts.push(`The service says: “${message}”.`);
  if (wait) parts.push(`Try again in ${wait} s.`);
  throw new Problem(parts.join(" "), answer.status, answer.headers.get("X-Request-ID"));
}

/** Upload an image once: its prediction, the class activation maps, the image as the network sees it. */
export function predict(file, signal) {
  const body = new FormData();
  body.append("file", file);
  return call("predict?cam=true", { method: "POST", body, signal });
}

function inPlainWords(status, code, withKey) {
  if (status === 401) {
    return withKey ? "The service does not accept this API key." : "The service requires an API key.";
  }
  if (code === "image_rejected") return "The service rejects this image.";
  if (status === 400 || status === 422) return "The image cannot be read.";
  if (status === 403) return "This API key does not allow that.";
  if (status === 408) return "The upload took too long.";
  if (status === 413) return "The image is too large.";
  if (status === 415) return "This is not a JPEG, PNG or DICOM image.";
  if (status === 429 && code === "queue_full") return "Too many images are queued.";
  if (status === 429) return "Too many requests in a short time.";
  if (status === 503 && code === "draining") return "The service is shutting down.";
  if (status === 503 && code === "stalled") return "The service cannot keep up.";
  if (status === 503 && code === "dicom_unavailable") return "The service cannot read DICOM at the moment.";
  if (status === 503) return "No model is ready yet.";
  if (status === 504) return "The service is too busy to answer in time.";
  return "The service failed.";
}
