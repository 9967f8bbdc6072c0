// What calls came to: counts of slots of ten seconds by server, and the times that follow from them.

/** Seconds up to which a call counts to a bucket (`observability/ring.py`); the last bucket is taken to end at twice the bound before it. */
const BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const CALLS = 0;
const ERRORS = 1;
const BUCKETS = 2;
const RECENT_SLOTS = 30; // five minutes

/** Counts added up: calls, errors, and calls by bucket. */
export function sum(all) {
  const found = { calls: 0, errors: 0, buckets: Array(BOUNDS.length).fill(0) };
  for (const counts of all) {
    found.calls += counts[CALLS] || 0;
    found.errors += counts[ERRORS] || 0;
    for (let at = BUCKETS; at < counts.length; at += 1) found.buckets[at - BUCKETS] += counts[at];
  }
  return found;
}

/** The time, in ms, within which this share of the calls ended; within a bucket they are taken as spread evenly. */
export function quantile(buckets, share) {
  const total = buckets.reduce((all, count) => all + count, 0);
  if (!total) return null;
  let passed = 0;
  for (let at = 0; at < buckets.length; at += 1) {
    if (buckets[at] && passed + buckets[at] >= share * total) {
      const low = at ? BOUNDS[at - 1] : 0;
      return 1e3 * (low + (BOUNDS[at] - low) * ((share * total - passed) / buckets[at]));
    }
    passed += buckets[at];
  }
  return null;
}

/** What the last five minutes' calls of one server came to. */
export function recent(feed, server) {
  const found = [];
  for (let number = feed.now - RECENT_SLOTS + 1; number <= feed.now; number += 1) {
    const counts = feed.slots.get(number)?.[server];
    if (counts) found.push(counts);
  }
  return sum(found);
}
