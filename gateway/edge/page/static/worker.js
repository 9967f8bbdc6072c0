// Holds the one stream of all tabs of this page: browsers allow six connections to a server over HTTP/1.1.

const NAMES = ['hello', 'servers', 'changed', 'calls', 'figures', 'workers'];
const KEPT = { hello: 1, servers: 1, calls: 100, figures: 730, workers: 1 }; // 720 figures are an hour
const ports = new Set();
let source = null;
let kept = {};
let isOpen = false;

function tell(name, value) {
  for (const port of ports) port.postMessage({ name, value });
}

/** The stream was refused: is the session over, or is the gateway away for a moment? */
async function look(address) {
  tell('away');
  await new Promise((go) => setTimeout(go, 500 + 1000 * Math.random()));
  if (source || !ports.size) return;
  try {
    const answer = await fetch(address.replace(/events$/, 'session'));
    if (answer.status === 403 || answer.status === 404 || (answer.ok && !(await answer.json()).signed_in)) {
      tell('out');
      return;
    }
  } catch { /* it is away */ }
  open(address);
}

/** Somebody signed out or in: nothing that the former user saw is told again. */
function end() {
  if (source) source.close();
  source = null;
  isOpen = false;
  kept = {};
}

function open(address) {
  if (source) return;
  kept = {};
  const mine = source = new EventSource(address);
  source.onopen = () => {
    if (source !== mine) return;
    isOpen = true;
    kept = {};
    tell('open');
  };
  source.onerror = () => { // not left to it: it would ask every few seconds with a session that is over
    if (source !== mine) return;
    end();
    look(address);
  };
  for (const name of NAMES) {
    source.addEventListener(name, (event) => {
      if (source !== mine) return;
      const value = JSON.parse(event.data);
      if (KEPT[name]) kept[name] = [...(kept[name] || []), value].slice(-KEPT[name]);
      tell(name, value);
    });
  }
}

onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = (message) => {
    if (message.data.say === 'end') { // signed out
      ports.delete(port);
      end();
      tell('out');
    } else if (message.data.say === 'open') {
      ports.add(port);
      if (message.data.isNew) end(); // signed in
      if (source) {
        if (isOpen) port.postMessage({ name: 'open' });
        for (const [name, values] of Object.entries(kept)) for (const value of values) port.postMessage({ name, value });
      } else open(message.data.address);
    } else if (message.data.say === 'close') {
      ports.delete(port);
      if (!ports.size) end();
    }
  };
};
