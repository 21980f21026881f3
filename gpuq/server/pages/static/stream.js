// One connection for all tabs of a browser: it keeps only six to a server, and each tab would take one for good. A tab
// says that it is looked at, and that it no longer is; while any is, what the daemon says goes to all of those.

const tabs = new Set();
let changes = null;

function tell(what) {
  for (const tab of tabs) tab.postMessage(what);
}

function listen() {
  if (changes || !tabs.size) return;
  changes = new EventSource("/ui/stream");
  changes.addEventListener("changed", () => tell("changed"));
  changes.addEventListener("open", () => tell("open"));
  changes.addEventListener("error", () => {
    tell("error");
    if (changes && changes.readyState === EventSource.CLOSED) {
      changes = null;
      setTimeout(listen, 2000);
    }
  });
}

self.addEventListener("connect", (event) => {
  const [tab] = event.ports;
  tab.addEventListener("message", (said) => {
    if (said.data === "look") {
      tabs.add(tab);
      if (changes && changes.readyState === EventSource.OPEN) tab.postMessage("open");
      listen();
    } else {
      tabs.delete(tab);
      if (!tabs.size && changes) {
        changes.close();
        changes = null;
      }
    }
  });
  tab.start();
});
