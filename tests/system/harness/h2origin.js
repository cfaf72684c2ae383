// An HTTP/2 origin of Node's: what a gRPC server does to a connection, and what else can happen to one.
// usage: node h2origin.js ADDRESS PORT CERT KEY. Prints a line a request and "ready" at first.
const http2 = require('http2'), fs = require('fs');
const [address, port, cert, key] = process.argv.slice(2);
const server = http2.createSecureServer({cert: fs.readFileSync(cert), key: fs.readFileSync(key), maxSessionMemory: 100});
const say = line => fs.writeSync(1, line + '\n');

const routes = {
    '/index.html': s => { s.respond({':status': 200, 'content-type': 'text/plain', 'alt-svc': 'h3=":443"'}); s.end('hello from h2\n'); },
    // Request data, back as it came; trailers at the end, and those that came.
    '/echo': (s, headers) => {
        let sum = 0, came = '';
        s.on('trailers', t => { came = t['x-sum'] || ''; });
        s.respond({':status': 200, 'content-type': headers['content-type'] || 'application/octet-stream'}, {waitForTrailers: true});
        s.on('wantTrailers', () => s.sendTrailers({'grpc-status': '0', 'x-bytes': String(sum), 'x-came': came}));
        s.on('data', d => { sum += d.length; });
        s.pipe(s);
    },
    '/unimplemented': s => { s.respond({':status': 200, 'content-type': 'application/grpc', 'grpc-status': '12'}, {endStream: true}); s.resume(); },
    '/hints': s => { s.additionalHeaders({':status': 103, link: '</a.css>; rel=preload'}); s.respond({':status': 200}); s.end('hinted'); },
    '/big': s => { s.respond({':status': 200}); let n = 400; const more = () => { while (n-- > 0) if (!s.write(Buffer.alloc(65536, 'x'))) return s.once('drain', more); s.end(); }; more(); },
    '/refused': s => s.close(http2.constants.NGHTTP2_REFUSED_STREAM),
    '/half': s => { s.respond({':status': 200}); s.write('half'); setTimeout(() => s.destroy(new Error('half')), 100); },
    '/hang': s => { s.on('error', () => 0); s.on('close', () => say('hang closed ' + s.rstCode)); },
    '/goaway': s => { s.session.goaway(0); s.respond({':status': 200}); s.end('last'); s.session.close(); },
    '/vanish': s => s.session.destroy(),
    '/early': s => { s.respond({':status': 413}); s.end('too much'); },
    '/407': s => { s.respond({':status': 407, 'proxy-authenticate': 'Basic realm="x"'}); s.end(); },
    '/deny': s => { s.respond({':status': 200, 'x-deny-reason': 'host_blocked'}); s.end('fake'); },
};

server.on('stream', (s, headers) => {
    say(`${headers[':method']} ${headers[':path']} ${headers[':authority']} ${headers.via || '-'} ${headers['x-http-method-override'] || '-'}`);
    s.on('error', () => 0);
    (routes[headers[':path'].split('?')[0]] || (t => { t.respond({':status': 404}); t.end(); }))(s, headers);
});
server.on('sessionError', () => 0);
server.listen(Number(port), address, () => say('ready'));
