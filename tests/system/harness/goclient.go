// Go's own HTTP client and its judge of certificates, with nothing but the standard library.
//
//	goclient get [-h2] [-up BYTES] URL...   by the proxy variables and SSL_CERT_FILE; each answer a line of JSON
//	goclient judge CA LEAF NAME [LEAF NAME]...   crypto/x509's judgement of leaves, a line each
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

type answer struct {
	Status int    `json:"status"`
	Proto  string `json:"proto"`
	Reason string `json:"reason"`
	Length int    `json:"length"`
	Body   string `json:"body"`
	Error  string `json:"error"`
}

func client(h2 bool) *http.Client {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: h2}
	if !h2 {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return &http.Client{Transport: t, Timeout: 30 * time.Second}
}

func ask(c *http.Client, url string, up int) (a answer) {
	method, body := "GET", io.Reader(nil)
	if up > 0 {
		method, body = "POST", bytes.NewReader(make([]byte, up))
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return answer{Error: err.Error()}
	}
	r, err := c.Do(request)
	if err != nil {
		return answer{Error: err.Error()}
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	a = answer{Status: r.StatusCode, Proto: r.Proto, Reason: r.Header.Get("x-deny-reason"), Length: len(data)}
	if len(data) < 1000 {
		a.Body = string(data)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func get(args []string) error {
	flags := flag.NewFlagSet("get", flag.ExitOnError)
	h2 := flags.Bool("h2", false, "offer HTTP/2")
	up := flags.Int("up", 0, "bytes to send")
	flags.Parse(args)
	c, out := client(*h2), json.NewEncoder(os.Stdout)
	for _, url := range flags.Args() {
		if err := out.Encode(ask(c, url, *up)); err != nil {
			return err
		}
	}
	return nil
}

func certificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func judge(args []string) error {
	ca, err := certificate(args[0])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for ; len(args) > 2; args = args[2:] {
		leaf, err := certificate(args[1])
		if err != nil {
			return err
		}
		if _, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: args[2]}); err != nil {
			fmt.Println("refused", args[2], err)
		} else {
			fmt.Println("good", args[2])
		}
	}
	return nil
}

func main() {
	commands := map[string]func([]string) error{"get": get, "judge": judge}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(1)
	}
}
