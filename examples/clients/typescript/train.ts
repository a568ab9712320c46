// Train and wait in 20 lines, without a package: TRAINKIT_URL=... TRAINKIT_KEY=... node train.ts digits (Node 22.18 or newer).

const headers = { Authorization: `Bearer ${process.env.TRAINKIT_KEY}`, "Content-Type": "application/json" };

async function call(path: string, body?: object) {
  const method = body ? "POST" : "GET";
  const answer = await fetch(`${process.env.TRAINKIT_URL}/v1${path}`, { method, headers, body: JSON.stringify(body) });
  const document = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status} ${document.code}: ${document.detail}`);
  return document;
}

let job = await call("/jobs", { dataset: process.argv[2], model: "mlp", train: { epochs: 5 } });
while (!job.finished_at) {
  await new Promise((resolve) => setTimeout(resolve, 500));
  job = await call(`/jobs/${job.id}`);
}
console.log(`${job.id} ${job.state}: test accuracy ${job.result?.test.accuracy}`);
