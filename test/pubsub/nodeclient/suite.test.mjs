// The official Node client against a broker that PUBSUB_EMULATOR_HOST names; `node --test` runs it.
import assert from 'node:assert/strict';
import {after, describe, test} from 'node:test';
import {PubSub, Encodings, SchemaTypes} from '@google-cloud/pubsub';

const client = new PubSub({projectId: process.env.PUBSUB_PROJECT_ID});
after(() => client.close());

// open makes a topic and a subscription of a test's own.
async function open(name, options = {}) {
  const [topic] = await client.createTopic('node-' + name);
  const [subscription] = await topic.createSubscription('node-' + name, options);
  return {topic, subscription};
}

// receive hands messages to each until that returns true, or fails after a minute.
function receive(subscription, each) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => finish(new Error('what was awaited did not come')), 60_000);
    async function finish(error) {
      clearTimeout(late);
      subscription.removeAllListeners();
      await subscription.close();
      error ? reject(error) : resolve();
    }
    subscription.on('error', finish);
    subscription.on('message', async m => {
      try {
        if (await each(m)) await finish();
      } catch (error) {
        await finish(error);
      }
    });
  });
}

const texts = n => Array.from({length: n}, (_, i) => String(i));

async function publish(topic, data, message = {}) {
  return Promise.all(data.map(text => topic.publishMessage({data: Buffer.from(text), ...message})));
}

// Those that wait for a lease or a backoff wait together.
describe('the official client', {concurrency: true}, () => {
  test('messages come with what they were published with', async () => {
    const {topic, subscription} = await open('plain');
    const [id] = await publish(topic, ['hello'], {attributes: {k: 'ü'}});
    await receive(subscription, m => {
      m.ack();
      assert.equal(m.id, id);
      assert.equal(m.data.toString(), 'hello');
      const {googclient_traceparent, ...attributes} = m.attributes;
      assert.deepEqual(attributes, {k: 'ü'});
      assert.match(googclient_traceparent, /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
      assert.ok(Math.abs(Date.now() - m.publishTime.getTime()) < 3600_000);
      return true;
    });
  });

  test('ordering keys', async () => {
    const {topic, subscription} = await open('ordering', {enableMessageOrdering: true});
    topic.setPublishOptions({messageOrdering: true});
    await Promise.all(['a', 'b'].map(orderingKey => publish(topic, texts(100), {orderingKey})));
    const got = {a: [], b: []};
    await receive(subscription, m => {
      m.ack();
      got[m.orderingKey].push(m.data.toString());
      return got.a.length + got.b.length === 200;
    });
    assert.deepEqual(got, {a: texts(100), b: texts(100)});
  });

  test('a nack voids what follows with its key', async () => {
    const {topic, subscription} = await open('voided', {enableMessageOrdering: true});
    topic.setPublishOptions({messageOrdering: true});
    await publish(topic, texts(20), {orderingKey: 'k'});
    const got = [];
    let failed = false;
    await receive(subscription, m => {
      const text = m.data.toString();
      if (text === '5' && !failed) {
        failed = true;
        m.nack();
        return false;
      }
      m.ack();
      got.push(text);
      return got.includes('19') && got.lastIndexOf('5') >= 0 && got.lastIndexOf('19') > got.lastIndexOf('5');
    });
    assert.deepEqual(got.slice(got.lastIndexOf('5')), texts(20).slice(5));
    assert.deepEqual(got.slice(0, 5), texts(5));
  });

  test('leases are extended', async () => {
    const {topic, subscription} = await open('lease', {ackDeadlineSeconds: 10});
    await publish(topic, ['slow']);
    let deliveries = 0;
    await receive(subscription, async m => {
      deliveries++;
      await new Promise(done => setTimeout(done, 13_000));
      m.ack();
      return true;
    });
    assert.equal(deliveries, 1);
  });

  test('a nack waits for the backoff', async () => {
    const {topic, subscription} = await open('backoff', {retryPolicy: {minimumBackoff: {seconds: 1}, maximumBackoff: {seconds: 2}}});
    await publish(topic, ['x']);
    const times = [];
    await receive(subscription, m => {
      times.push(Date.now());
      if (times.length === 2) {
        m.ack();
        return true;
      }
      m.nack();
    });
    assert.ok(times[1] - times[0] >= 900, `${times[1] - times[0]} ms`);
  });

  test('dead letters', async () => {
    const {topic} = await open('dead');
    const {topic: dead, subscription: buried} = await open('dead-letters');
    const [poisoned] = await topic.createSubscription('node-poisoned', {deadLetterPolicy: {deadLetterTopic: dead.name, maxDeliveryAttempts: 5}});
    await publish(topic, ['poison']);
    const attempts = [];
    poisoned.on('message', m => {
      attempts.push(m.deliveryAttempt);
      m.nack();
    });
    await receive(buried, m => {
      m.ack();
      assert.equal(m.data.toString(), 'poison');
      return true;
    });
    poisoned.removeAllListeners();
    await poisoned.close();
    assert.deepEqual(attempts, [1, 2, 3, 4, 5]);
  });

  test('filters', async () => {
    const {topic, subscription} = await open('filter', {filter: 'hasPrefix(attributes.region, "eu-") AND NOT attributes:test'});
    for (const attributes of [{region: 'us-1'}, {region: 'eu-1', test: ''}, {region: 'eu-2'}]) {
      await publish(topic, [attributes.region], {attributes});
    }
    await receive(subscription, m => {
      m.ack();
      assert.equal(m.data.toString(), 'eu-2');
      return true;
    });
  });

  test('seek and snapshots', async () => {
    const {topic, subscription} = await open('seek');
    await publish(topic, ['0', '1']);
    const [snapshot] = await subscription.createSnapshot('node-snapshot');
    const take = async n => {
      const got = [];
      await receive(client.subscription(subscription.name), async m => {
        m.ack();
        got.push(m.data.toString());
        return got.length === n;
      });
      return got.sort();
    };
    assert.deepEqual(await take(2), ['0', '1']);
    await subscription.seek(snapshot.name);
    assert.deepEqual(await take(2), ['0', '1']);
    await subscription.seek(new Date(Date.now() - 3600_000));
    assert.deepEqual(await take(2), ['0', '1']);
  });

  test('exactly once', async () => {
    const {topic, subscription} = await open('once', {enableExactlyOnceDelivery: true});
    await publish(topic, texts(50));
    const acked = new Map();
    await receive(subscription, async m => {
      assert.equal(await m.ackWithResponse(), 'SUCCESS');
      const text = m.data.toString();
      acked.set(text, (acked.get(text) ?? 0) + 1);
      return acked.size === 50;
    });
    assert.ok([...acked.values()].every(n => n === 1));
  });

  test('a late acknowledgement is told as one', async () => {
    const {topic, subscription} = await open('late', {enableExactlyOnceDelivery: true});
    await publish(topic, ['x']);
    let first;
    await receive(subscription, async m => {
      if (!first) {
        first = m; // its lease is ended by another client
        const answer = await fetch(`http://${process.env.PUBSUB_EMULATOR_HOST}/v1/${subscription.name}:modifyAckDeadline`, {
          method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({ackIds: [m.ackId], ackDeadlineSeconds: 0}),
        });
        assert.equal(answer.status, 200);
        return false;
      }
      await assert.rejects(first.ackWithResponse(), {errorCode: 'INVALID'});
      assert.equal(await m.ackWithResponse(), 'SUCCESS');
      return true;
    });
  });

  test('schemas', async () => {
    const definition = JSON.stringify({type: 'record', name: 'R', fields: [{name: 'id', type: 'long'}]});
    const schema = await client.createSchema('node-schema', SchemaTypes.Avro, definition);
    const [topic] = await client.createTopic({name: 'node-checked', schemaSettings: {schema: await schema.getName(), encoding: Encodings.Json}});
    const [subscription] = await topic.createSubscription('node-checked');
    await assert.rejects(publish(topic, ['{"id": "x"}']), {code: 3});
    await publish(topic, ['{"id": 7}']);
    await receive(subscription, m => {
      m.ack();
      assert.equal(m.attributes.googclient_schemaencoding, 'JSON');
      assert.equal(m.attributes.googclient_schemaname, 'projects/shop/schemas/node-schema');
      assert.match(m.attributes.googclient_schemarevisionid, /^[0-9a-f]{8}$/);
      return true;
    });
  });

  test('flow control', async () => {
    const {topic, subscription} = await open('flow');
    await publish(topic, texts(30));
    const held = [];
    const holder = client.subscription(subscription.name, {flowControl: {maxMessages: 3, allowExcessMessages: false}, streamingOptions: {maxStreams: 1}});
    await receive(holder, async m => {
      held.push(m);
      if (held.length < 3) return false;
      // Who may hold three messages gets no fourth: the others are there for another client.
      const others = new Set();
      await receive(client.subscription(subscription.name), other => {
        other.ack();
        others.add(other.data.toString());
        return others.size === 27;
      });
      held.forEach(one => one.ack());
      assert.equal(new Set([...others, ...held.map(one => one.data.toString())]).size, 30);
      return true;
    });
    assert.equal(held.length, 3);
  });
});
