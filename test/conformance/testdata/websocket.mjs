// A WebSocket over HTTP/2 (RFC 8441), by Node's own HTTP/2:
//   node websocket.mjs client ADDRESS PATH    sends "hello", and prints what comes back
//   node websocket.mjs server                 prints its address, and echoes
import http2 from 'node:http2';

// frame makes a text frame, masked where a client sends it.
function frame(text, masked) {
  const body = Buffer.from(text);
  if (!masked) return Buffer.concat([Buffer.from([0x81, body.length]), body]);
  const key = Buffer.from([1, 2, 3, 4]);
  return Buffer.concat([Buffer.from([0x81, 0x80 | body.length]), key, body.map((b, i) => b ^ key[i % 4])]);
}

// text reads a short text frame.
function text(data) {
  const length = data[1] & 0x7f;
  if (!(data[1] & 0x80)) return data.subarray(2, 2 + length).toString();
  return Buffer.from(data.subarray(6, 6 + length).map((b, i) => b ^ data[2 + (i % 4)])).toString();
}

function client(address, path) {
  const session = http2.connect('http://' + address);
  session.on('remoteSettings', (settings) => {
    if (!settings.enableConnectProtocol) throw new Error('the server takes no extended CONNECT');
    const stream = session.request({
      ':method': 'CONNECT', ':protocol': 'websocket', ':path': path, ':authority': 'target', ':scheme': 'http',
      'sec-websocket-version': '13', origin: 'http://target',
    });
    stream.on('response', (headers) => {
      console.log('status', headers[':status'], headers['shoal-reason'] ?? '', headers['sec-websocket-accept'] ?? '');
      if (headers[':status'] === 200) stream.write(frame('hello', true));
    });
    stream.on('data', (data) => {
      if (data[0] !== 0x81) console.log(data.toString());
      if (data[0] === 0x81) console.log('text', text(data));
      stream.end();
    });
    stream.on('close', () => { console.log("closed", stream.rstCode); session.close(); });
    stream.on('error', (err) => console.log('error', err.message));
  });
}

function server() {
  const s = http2.createServer({ settings: { enableConnectProtocol: true } });
  s.on('stream', (stream, headers) => {
    if (headers[':method'] !== 'CONNECT') { stream.respond({ ':status': 200 }); stream.end(); return; }
    stream.respond({ ':status': 200 });
    stream.on('data', (data) => stream.write(frame(text(data) + ' by ' + headers[':protocol'], false)));
    stream.on('end', () => stream.end());
  });
  s.listen(0, '127.0.0.1', () => console.log('127.0.0.1:' + s.address().port));
}

const [mode, ...args] = process.argv.slice(2);
mode === 'server' ? server() : client(...args);
