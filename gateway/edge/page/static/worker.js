// Holds the one stream of all tabs of this page: browsers allow six connections to a server over HTTP/1.1.

const NAMES = ['hello', 'servers', 'changed', 'calls', 'figures', 'workers'];
const KEPT = { hello: 1, servers: 1, calls: 20, figures: 400, workers: 1 };
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
  await new Promise((go) => setTimeout(go, 1000 + 1000 * Math.random()));
  if (source || !ports.size) return;
  try {
    const answer = await fetch(address.replace(/events$/, 'session'));
    if (answer.ok && !(await answer.json()).signed_in) {
      tell('out');
      return;
    }
  } catch { /* it is away */ }
  open(address);
}

function open(address) {
  if (source) return;
  kept = {};
  source = new EventSource(address);
  source.onopen = () => { isOpen = true; kept = {}; tell('open'); };
  source.onerror = () => {
    isOpen = false;
    if (source && source.readyState === EventSource.CLOSED) {
      source = null;
      look(address);
    } else tell('away');
  };
  for (const name of NAMES) {
    source.addEventListener(name, (event) => {
      const value = JSON.parse(event.data);
      if (KEPT[name]) kept[name] = [...(kept[name] || []), value].slice(-KEPT[name]);
      tell(name, value);
    });
  }
}

onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = (message) => {
    if (message.data.say === 'open') {
      ports.add(port);
      if (source) {
        if (isOpen) port.postMessage({ name: 'open' });
        for (const [name, values] of Object.entries(kept)) for (const value of values) port.postMessage({ name, value });
      } else open(message.data.address);
    } else if (message.data.say === 'close') {
      ports.delete(port);
      if (!ports.size && source) {
        source.close();
        source = null;
        isOpen = false;
        kept = {};
      }
    }
  };
};
