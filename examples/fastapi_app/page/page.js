"use strict";
const $ = (id) => document.getElementById(id);
const WORDS = {
  waiting: "Waiting for its turn",
  pending: "In the service’s queue",
  processing: "Being redrawn",
  saving: "Fetching the picture",
  done: "Done",
  failed: "It failed",
  unknown: "Nobody knows whether it is being redrawn",
};
const MOST_BYTES = 10 * 2 ** 20;

/* Sending */

function choose(file) {
  const problem = !file.type.startsWith("image/") ? "That is no picture." : file.size > MOST_BYTES ? "That photo is over 10 MB." : "";
  $("wrong").textContent = problem;
  if (problem) $("file").value = "";
  URL.revokeObjectURL($("chosen").src);
  $("chosen").hidden = Boolean(problem);
  $("hint").hidden = !problem;
  $("drop").classList.toggle("full", !problem);
  if (!problem) $("chosen").src = URL.createObjectURL(file);
}

function send(file, prompt) {
  // XMLHttpRequest, since fetch can't tell how far an upload is. The file is the body: nothing is packed, here or there.
  const request = new XMLHttpRequest();
  request.open("POST", `/photos?prompt=${encodeURIComponent(prompt)}`);
  request.setRequestHeader("Content-Type", file.type);
  request.responseType = "json";
  const end = (problem) => {
    $("go").disabled = false;
    $("go").textContent = "Redraw it";
    $("wrong").textContent = problem;
  };
  request.upload.onprogress = (event) => {
    $("go").textContent = `Sending, ${Math.floor((100 * event.loaded) / event.total)} %`;
  };
  request.onerror = () => end("The photo couldn’t be sent. Try again.");
  request.onload = () => {
    const answer = request.response;
    if (request.status !== 201) return end(typeof answer?.detail === "string" ? answer.detail : "The photo wasn’t taken. Try again.");
    end("");
    history.pushState(null, "", `/photos/${answer.id}`);
    route(answer);
  };
  $("go").disabled = true;
  $("go").textContent = "Sending";
  $("wrong").textContent = "";
  request.send(file);
}

$("chosen").addEventListener("error", () => {
  // It may be one that the service can read and this browser can't.
  $("chosen").hidden = true;
  $("hint").hidden = false;
  $("name").textContent = $("file").files[0]?.name ?? "Choose a photo";
});
$("file").addEventListener("change", () => $("file").files[0] && choose($("file").files[0]));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) {
      $("file").files = event.dataTransfer.files;
      choose($("file").files[0]);
    }
  });
$("ideas").addEventListener("click", (event) => {
  if (event.target.matches("button")) $("prompt").value = `The same, ${event.target.textContent}`;
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("file").files[0]) send($("file").files[0], $("prompt").value);
});

/* Showing */

let listening = null;

function paint(photo) {
  const ended = ["done", "failed", "unknown"].includes(photo.state);
  document.title = ended ? `${WORDS[photo.state]}: ${photo.prompt}` : `${Math.floor(photo.progress)} %: ${photo.prompt}`;
  $("said").textContent = $("said").title = photo.prompt;
  $("news").dataset.state = photo.state;
  $("state").textContent = WORDS[photo.state] ?? photo.state;
  $("why").textContent = photo.error;
  $("bar").value = photo.progress;
  $("percent").textContent = photo.state === "processing" ? `${Math.floor(photo.progress)} %` : "";
  $("canvas").classList.toggle("busy", !ended);
  $("note").hidden = ended;
  const after = $("after");
  const source = photo.state === "done" ? `/photos/${photo.id}/picture` : photo.preview;
  if (source && after.getAttribute("src") !== source) after.src = source;
  after.hidden = !source;
  after.alt = photo.state === "done" ? `The photo, redrawn: ${photo.prompt}` : "A rough preview";
  after.classList.toggle("rough", photo.state !== "done");
  $("keep").hidden = photo.state !== "done";
  $("keep").href = `/photos/${photo.id}/picture`;
  $("keep").download = `redrawn-${photo.id}.png`;
  return ended;
}

function listen(id) {
  listening = new EventSource(`/photos/${id}/events`); // it comes back by itself, to whichever worker answers
  listening.onmessage = (event) => paint(JSON.parse(event.data)) && listening.close();
  listening.onerror = () => {
    if (listening.readyState === EventSource.CLOSED) $("state").textContent = "There is no such photo any more";
    else $("state").textContent = "The connection was lost; trying again";
  };
}

function route(known) {
  listening?.close();
  const id = location.pathname.split("/")[2];
  $("send").hidden = Boolean(id);
  $("show").hidden = !id;
  if (!id) return;
  $("after").removeAttribute("src");
  $("before").src = `/photos/${id}/original`;
  if (known) paint(known);
  listen(id);
}
addEventListener("popstate", () => route());
route();
