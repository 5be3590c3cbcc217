// A login link carries its secret behind the #, which browsers never send; it is taken out of the address at once.
"use strict";

async function signIn() {
  const secret = new URLSearchParams(location.hash.slice(1)).get("login");
  if (secret === null) return;
  history.replaceState(null, "", location.pathname);
  const told = document.getElementById("told");
  told.textContent = "Signing in…";
  const body = JSON.stringify({ login: secret });
  const headers = { "Content-Type": "application/json" };
  const reply = await fetch("/api/v1/session", { method: "POST", headers, body, credentials: "same-origin" });
  if (reply.ok) {
    location.reload();
    return;
  }
  const problem = await reply.json().catch(() => ({}));
  told.textContent = `${problem.detail || "the server refused this link"}. Ask for a new one.`;
}

signIn();
addEventListener("hashchange", signIn); // the link was pasted into the address of this very page
