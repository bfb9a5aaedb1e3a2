package main

import (
	"bytes"
	"errors"
	"strconv"
)

const maxHead = 64 << 10

var errMalformed = errors.New("the answer is not HTTP/1.1")

// response reads one HTTP/1.1 answer from pieces of any size; its body is counted and dropped.
type response struct {
	status  int
	grpc    string // the status of a gRPC call that a proxy has put into the head
	closing bool
	stage   stage
	left    int    // bytes of the body, or of the chunk, that are still to come
	line    []byte // the head, or the line of a chunked body, as far as it has come
}

type stage int

const (
	inHead stage = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	complete
)

// isGood says whether it is what was asked for: a gRPC call that failed has the status 200, too.
func (r *response) isGood() bool {
	return r.status >= 200 && r.status < 300 && (r.grpc == "" || r.grpc == "0")
}

// kind names it among those that are not.
func (r *response) kind() string {
	if r.grpc != "" && r.grpc != "0" {
		return "grpc-" + r.grpc
	}
	return strconv.Itoa(r.status)
}

func (r *response) reset() {
	*r = response{line: r.line[:0]}
}

// feed takes bytes in; done is true when the answer is whole. Bytes beyond its end are an error: none were asked for.
func (r *response) feed(data []byte) (done bool, err error) {
	for len(data) > 0 && r.stage != complete {
		switch r.stage {
		case inHead:
			data, err = r.head(data)
		case inBody, inChunk:
			taken := min(len(data), r.left)
			data, r.left = data[taken:], r.left-taken
			switch {
			case r.left > 0:
			case r.stage == inBody:
				r.stage = complete
			default:
				r.stage = inChunkEnd
			}
		default:
			data, err = r.chunkLine(data)
		}
		if err != nil {
			return false, err
		}
	}
	if r.stage == complete && len(data) > 0 {
		return false, errMalformed
	}
	return r.stage == complete, nil
}

// head collects the status line and the headers, which end with an empty line.
func (r *response) head(data []byte) ([]byte, error) {
	before := len(r.line)
	r.line = append(r.line, data...)
	end := bytes.Index(r.line, []byte("\r\n\r\n"))
	if end < 0 {
		if len(r.line) > maxHead {
			return nil, errMalformed
		}
		return nil, nil
	}
	rest := data[end+4-before:]
	err := r.readHead(r.line[:end])
	r.line = r.line[:0]
	return rest, err
}

func (r *response) readHead(head []byte) error {
	first, headers, _ := bytes.Cut(head, []byte("\r\n"))
	if len(first) < 12 || !bytes.HasPrefix(first, []byte("HTTP/1.")) {
		return errMalformed
	}
	status, err := strconv.Atoi(string(first[9:12]))
	if err != nil || status < 200 {
		return errMalformed
	}
	r.status, r.closing = status, first[7] == '0'
	length, chunked := -1, false
	for len(headers) > 0 {
		var line []byte
		line, headers, _ = bytes.Cut(headers, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return errMalformed
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")):
			r.closing = r.closing || bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("grpc-status")):
			r.grpc = string(value)
		}
	}
	switch {
	case chunked:
		r.stage = inChunkSize
	case length > 0:
		r.stage, r.left = inBody, length
	case length == 0 || status == 204 || status == 304:
		r.stage = complete
	default:
		return errMalformed // a body that ends with the connection: no server here does that
	}
	return nil
}

// chunkLine collects one line of a chunked body: a size, the end of a chunk, or a trailer.
func (r *response) chunkLine(data []byte) ([]byte, error) {
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		r.line = append(r.line, data...)
		if len(r.line) > maxHead {
			return nil, errMalformed
		}
		return nil, nil
	}
	r.line = append(r.line, data[:end]...)
	line := bytes.TrimSuffix(r.line, []byte("\r"))
	err := r.readChunkLine(line)
	r.line = r.line[:0]
	return data[end+1:], err
}

func (r *response) readChunkLine(line []byte) error {
	switch {
	case r.stage == inChunkSize:
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 31)
		if err != nil {
			return errMalformed
		}
		r.stage, r.left = inChunk, int(size)
		if size == 0 {
			r.stage = inTrailer
		}
	case r.stage == inChunkEnd && len(line) == 0:
		r.stage = inChunkSize
	case r.stage == inTrailer && len(line) == 0:
		r.stage = complete
	case r.stage == inChunkEnd:
		return errMalformed
	}
	return nil
}
