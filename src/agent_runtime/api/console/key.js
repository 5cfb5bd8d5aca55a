// The API key, if the service requires one; the tab keeps it until it is closed. Requests are relative to the page, which
// a proxy may serve under a path.

/** @param {string} path @param {RequestInit} [request] */
export async function withKey(path, request = {}) {
  for (;;) {
    const key = sessionStorage.getItem("key");
    const headers = new Headers(request.headers);
    if (key) headers.set("Authorization", `Bearer ${key}`);
    const response = await fetch(path.slice(1), { ...request, headers });
    if (response.status !== 401) return response;
    if (sessionStorage.getItem("key") !== key) continue;
    const given = window.prompt("This service requires an API key:")?.trim();
    if (!given) return response;
    sessionStorage.setItem("key", given);
  }
}
