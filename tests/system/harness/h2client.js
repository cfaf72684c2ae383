// HTTP/2 through a proxy's CONNECT, by Node's own client. usage: node h2client.js PROXY_HOST PROXY_PORT AUTHORIZATION CA HOST TEST
// Prints one JSON value.
const http2 = require('http2'), tls = require('tls'), net = require('net'), fs = require('fs');
const [proxyHost, proxyPort, authorization, ca, host, test] = process.argv.slice(2);

function connect() {
    return new Promise((resolve, reject) => {
        const s = net.connect(Number(proxyPort), proxyHost, () => s.write(`CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\nProxy-Authorization: ${authorization}\r\n\r\n`));
        let head = '';
        s.on('error', reject);
        s.on('data', function on(d) {
            head += d;
            if (!head.includes('\r\n\r\n')) return;
            s.removeListener('data', on);
            if (!head.startsWith('HTTP/1.1 200')) return reject(new Error(head.split('\r\n')[0]));
            const t = tls.connect({socket: s, servername: host, ALPNProtocols: ['h2', 'http/1.1'], ca: fs.readFileSync(ca)}, () => {
                if (t.alpnProtocol !== 'h2') return reject(new Error('ALPN ' + t.alpnProtocol));
                const c = http2.connect(`https://${host}`, {createConnection: () => t, maxSessionMemory: 100});
                c.on('error', () => 0);
                resolve(c);
            });
            t.on('error', reject);
        });
    });
}

// One request; everything that came of it. Options: body (Buffer), trailers, keep (no data is read), open (not ended).
function ask(c, headers, o = {}) {
    return new Promise(resolve => {
        const r = {bytes: 0, text: '', hints: 0};
        const s = c.request(headers, {endStream: !o.body && !o.open && !o.trailers, waitForTrailers: !!o.trailers});
        if (o.trailers) s.on('wantTrailers', () => s.sendTrailers(o.trailers));
        s.on('headers', () => { r.hints++; });
        s.on('response', h => { r.status = h[':status']; r.headers = {...h}; });
        s.on('trailers', t => { r.trailers = {...t}; });
        s.on('error', e => { r.error = e.code; });
        s.on('close', () => { r.code = s.rstCode; resolve(r); });
        if (!o.keep) s.on('data', d => { r.bytes += d.length; if (r.text.length < 2000) r.text += d; });
        if (o.body) s.end(o.body); else if (o.trailers) s.end();
        if (o.stream) o.stream(s, r);
    });
}

const sleep = ms => new Promise(f => setTimeout(f, ms));
const tests = {
    get: async c => ask(c, {':path': '/index.html', 'x-http-method-override': 'DELETE'}),
    path: async c => ask(c, {':path': process.argv[8], ':method': process.argv[9] || 'GET'}),
    // A unary call and a streaming one of gRPC, side by side, many at once.
    grpc: async c => {
        const body = Buffer.alloc(300000, 'g');
        const all = await Promise.all(Array.from({length: 50}, (_, i) => ask(c, {':method': 'POST', ':path': '/echo', 'content-type': 'application/grpc', te: 'trailers'},
                                                                          {body: body.subarray(0, i * 5000), trailers: {'x-sum': 's' + i}})));
        return all.map((r, i) => r.status === 200 && r.bytes === i * 5000 && r.trailers['grpc-status'] === '0' && r.trailers['x-came'] === 's' + i);
    },
    // Messages go to and fro one by one on a stream that stays open.
    bidi: async c => ask(c, {':method': 'POST', ':path': '/echo', 'content-type': 'application/grpc'}, {open: true, stream: (s, r) => {
        let n = 0;
        s.on('data', () => { if (++n < 100) s.write('m'); else s.end(); });
        s.write('m');
    }}),
    unimplemented: async c => ask(c, {':method': 'POST', ':path': '/unimplemented', 'content-type': 'application/grpc'}, {body: Buffer.from('x')}),
    hints: async c => ask(c, {':path': '/hints'}),
    // One stream is not read; another brings 26 MB meanwhile.
    slow: async c => {
        const kept = ask(c, {':path': '/big'}, {keep: true, stream: s => { s.pause(); setTimeout(() => s.close(8), 8000).unref(); }});
        const fast = [];
        for (let i = 0; i < 3; i++) fast.push((await ask(c, {':path': '/big'})).bytes);
        kept.catch(() => 0);
        return fast;
    },
    refused: async c => [await ask(c, {':path': '/refused'}), await ask(c, {':path': '/half'}), await ask(c, {':path': '/index.html'})],
    cancel: async c => {
        const r = await ask(c, {':path': '/hang'}, {stream: s => setTimeout(() => s.close(8), 200)});
        await sleep(300);
        return r;
    },
    goaway: async c => {
        let said = false;
        c.on('goaway', () => { said = true; });
        const r = await ask(c, {':path': '/goaway'});
        await new Promise(f => c.destroyed ? f() : c.on('close', f));
        return [r, said];
    },
    vanish: async c => ask(c, {':path': '/vanish'}),
    // Node waits for its own upload even when the stream is closed without an error: the end of the answer is what counts.
    early: c => new Promise(f => ask(c, {':method': 'POST', ':path': '/early'}, {body: Buffer.alloc(5 << 20), stream: (s, r) => s.on('end', () => f(r))})),
    407: async c => ask(c, {':path': '/407'}),
    upload: async c => ask(c, {':method': 'PUT', ':path': '/echo'}, {body: Buffer.alloc(20 << 20, 'u')}),
};

connect().then(async c => {
    const result = await tests[test](c);
    console.log(JSON.stringify(result));
    c.destroy();
    process.exit(0);
}, e => { console.log(JSON.stringify({failed: e.message})); process.exit(0); });
setTimeout(() => { console.log(JSON.stringify({failed: 'timeout'})); process.exit(0); }, 30000);
