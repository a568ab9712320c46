// The interactive documentation. The key stays in this page's memory: it is stored nowhere and gone on reload.
"use strict";

const element = (id) => document.getElementById(id);

function say(text, isError) {
  const message = element("message");
  message.textContent = text;
  message.classList.toggle("error", isError);
  message.hidden = !text;
}

/** Fetch the OpenAPI document; null where the key is refused, and the reason is shown. */
async function fetchDocument(key) {
  let response;
  try {
    response = await fetch("openapi.json", {
      headers: key ? { Authorization: `Bearer ${key}` } : {},
      credentials: "same-origin", // of a browser that has signed in at /v1/auth/login
    });
  } catch {
    say("The service does not answer. Try again.", true);
    return null;
  }
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => null);
  if (!key && response.status === 401) say("Enter an API key to see the operations and to try them.", false);
  else say(problem?.detail ?? `The service answered with status ${response.status}.`, true);
  return null;
}

function show(openapi, key) {
  if (typeof SwaggerUIBundle === "undefined") {
    say("Swagger UI is not built here: run `make setup`. The document itself is at openapi.json.", true);
    return;
  }
  const bearers = Object.entries(openapi.components?.securitySchemes ?? {})
    .filter(([, scheme]) => scheme.type === "http" && scheme.scheme === "bearer")
    .map(([name]) => name);
  const ui = SwaggerUIBundle({
    spec: openapi,
    domNode: element("operations"),
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    filter: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    onComplete: () => {
      if (key) for (const name of bearers) ui.preauthorizeApiKey(name, key);
    },
  });
  document.body.dataset.signedIn = String(Boolean(key));
}

async function load(key) {
  say("", false);
  const openapi = await fetchDocument(key);
  if (!openapi) return;
  if (key) {
    element("sign-in").hidden = true;
    element("signed-in").hidden = false;
    element("key-id").textContent = key.split("_").slice(0, 2).join("_");
  }
  show(openapi, key);
}

element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = element("key");
  const key = field.value.trim();
  field.value = "";
  load(key);
});
element("sign-out").addEventListener("click", () => location.reload());
load("");
