package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// target is an address and the path to POST to.
type target struct {
	address [4]byte
	port    int
	host    string
	path    string
}

// readTarget refuses everything but plain HTTP to a loopback address, or to a private one where that is wanted: this
// program can do harm anywhere else.
func readTarget(text string, private bool) (target, error) {
	parsed, err := url.Parse(text)
	if err != nil {
		return target{}, fmt.Errorf("-target: %w", err)
	}
	if parsed.Scheme != "http" {
		return target{}, fmt.Errorf("-target is %q; it must begin with http://", text)
	}
	name := parsed.Hostname()
	if name == "localhost" {
		name = "127.0.0.1"
	}
	address := net.ParseIP(name).To4()
	if address == nil || !address.IsLoopback() && !(private && address.IsPrivate()) {
		return target{}, fmt.Errorf(
			"-target is %q; only 127.0.0.0/8 and localhost may be loaded, and private addresses with -private", text)
	}
	port, err := strconv.Atoi(parsed.Port())
	if err != nil || port < 1 || port > 65535 {
		return target{}, fmt.Errorf("-target is %q; it must name a port from 1 to 65535", text)
	}
	return target{address: [4]byte(address), port: port, host: parsed.Host, path: parsed.RequestURI()}, nil
}

// buildRequests writes each request out in full once, so that sending one is a single write of ready bytes.
func buildRequests(to target, headers, files []string, lines string) ([][]byte, error) {
	bodies, err := readBodies(files, lines)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, 0, len(bodies))
	for _, body := range bodies {
		var request bytes.Buffer
		fmt.Fprintf(&request, "POST %s HTTP/1.1\r\nHost: %s\r\n", to.path, to.host)
		for _, header := range headers {
			if strings.ContainsAny(header, "\r\n") || !strings.Contains(header, ":") {
				return nil, fmt.Errorf("-header is %q; it must be one line of the form Name: value", header)
			}
			fmt.Fprintf(&request, "%s\r\n", header)
		}
		fmt.Fprintf(&request, "Content-Length: %d\r\n\r\n", len(body))
		request.Write(body)
		requests = append(requests, request.Bytes())
	}
	return requests, nil
}

func readBodies(files []string, lines string) ([][]byte, error) {
	var bodies [][]byte
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("-body: %w", err)
		}
		bodies = append(bodies, body)
	}
	if lines != "" {
		data, err := os.ReadFile(lines)
		if err != nil {
			return nil, fmt.Errorf("-lines: %w", err)
		}
		for _, line := range bytes.Split(data, []byte("\n")) {
			if len(line) > 0 {
				bodies = append(bodies, line)
			}
		}
	}
	if len(bodies) == 0 {
		return nil, errors.New("there is nothing to send; give -body or -lines")
	}
	return bodies, nil
}
