// Clients and servers of libraries that come from npm. usage: node nodeclients.js MODULES TEST ARGUMENT…
// Prints one JSON value ("ready" first where it is a server).
const path = require('path'), fs = require('fs');
const [modules, test, ...args] = process.argv.slice(2);
const load = name => require(path.join(modules, name));
const method = (name, requestStream, responseStream) => ({path: '/demo.Echo/' + name, requestStream, responseStream, requestSerialize: Buffer.from,
    requestDeserialize: b => b.toString(), responseSerialize: Buffer.from, responseDeserialize: b => b.toString()});
const service = {Unary: method('Unary', false, false), Many: method('Many', false, true), Chat: method('Chat', true, true), Fail: method('Fail', false, false)};

const tests = {
    'grpc-server': (address, cert, key) => {
        const grpc = load('@grpc/grpc-js'), server = new grpc.Server();
        server.addService(service, {
            Unary: (call, done) => { const t = new grpc.Metadata(); t.set('x-trailer', 'seen'); done(null, 'unary:' + call.request, t); },
            Many: call => { let n = 0; const timer = setInterval(() => { call.write(`${call.request}${n++}`); if (n === 20) { clearInterval(timer); call.end(); } }, 20); },
            Chat: call => { call.on('data', m => call.write('chat:' + m)); call.on('end', () => call.end()); },
            Fail: (call, done) => done({code: grpc.status.FAILED_PRECONDITION, details: 'not today'}),
        });
        const pair = {private_key: fs.readFileSync(key), cert_chain: fs.readFileSync(cert)};
        server.bindAsync(address, grpc.ServerCredentials.createSsl(null, [pair]), e => console.log(e ? String(e) : 'ready'));
    },
    'grpc-client': async (target, ca) => {
        const grpc = load('@grpc/grpc-js');
        const client = new (grpc.makeGenericClientConstructor(service, 'Echo'))(target, grpc.credentials.createSsl(fs.readFileSync(ca)));
        const out = {};
        out.unary = await new Promise(f => { const c = client.Unary('a', (e, r) => { out.error = e && e.message; }); let r; c.on('status', s => f([s.code, s.metadata.get('x-trailer')[0]])); });
        out.fail = await new Promise(f => client.Fail('a', e => f([e.code, e.details])));
        out.many = await new Promise(f => { const got = []; const c = client.Many('m'); c.on('data', d => got.push(d)); c.on('error', e => f(e.message)); c.on('end', () => f(got.length)); });
        out.chat = await new Promise(f => {
            const got = [], c = client.Chat();
            c.on('data', d => { got.push(d); if (got.length < 50) c.write('x'.repeat(1000 * got.length)); else c.end(); });
            c.on('error', e => f(e.message));
            c.on('end', () => f([got.length, got.reduce((n, d) => n + d.length, 0)]));
            c.write('');
        });
        out.parallel = await Promise.all(Array.from({length: 100}, (_, i) => new Promise(f => client.Unary('n' + i, (e, r) => f(e ? e.message : r === 'unary:n' + i)))));
        out.parallel = out.parallel.filter(x => x === true).length;
        return out;
    },
    'undici': async (proxy, token, ca, url, h2) => {
        const {ProxyAgent, fetch} = load('undici');
        const agent = new ProxyAgent({uri: proxy, token, requestTls: {ca: fs.readFileSync(ca), allowH2: h2 === 'h2'}, allowH2: h2 === 'h2', connections: 1});
        const all = [];
        for (let i = 0; i < 3; i++) { const r = await fetch(url, {dispatcher: agent}); all.push([r.status, await r.text(), r.headers.get('via')]); }
        const post = await fetch(url.replace('index.html', 'echo'), {method: 'POST', body: 'x'.repeat(100000), dispatcher: agent});
        all.push([post.status, (await post.text()).length]);
        return all;
    },
    'https': async (proxy, token, ca, url) => {
        const http = require('http'), https = require('https'), u = new URL(url), p = new URL(proxy);
        return new Promise((f, no) => http.request({host: p.hostname, port: p.port, method: 'CONNECT', path: u.host + ':443', headers: {host: u.host + ':443', 'proxy-authorization': token}})
            .on('connect', (r, socket) => {
                https.get(url, {socket, agent: false, ca: fs.readFileSync(ca), servername: u.host}, r => {
                    let text = ''; r.on('data', d => { text += d; }); r.on('end', () => f([r.statusCode, text]));
                }).on('error', no);
            }).on('error', no).end());
    },
};

setTimeout(() => { if (test !== 'grpc-server') { console.log(JSON.stringify({failed: 'timeout'})); process.exit(0); } }, 40000).unref();
Promise.resolve(tests[test](...args)).then(r => { if (r !== undefined) { console.log(JSON.stringify(r)); process.exit(0); } }, e => { console.log(JSON.stringify({failed: String(e), cause: String(e.cause)})); process.exit(0); });
