package main

import "testing"

const head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"

func TestAnAnswerIsWholeExactlyAtItsEndHoweverItIsCut(t *testing.T) {
	answers := map[string]string{
		"with a length":        head + "Content-Length: 5\r\n\r\nhello",
		"with an empty body":   head + "content-length: 0\r\n\r\n",
		"without content":      "HTTP/1.1 204 No Content\r\n\r\n",
		"chunked":              head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n",
		"chunked with trailer": head + "Transfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\nchecksum: 1\r\n\r\n",
	}
	for name, answer := range answers {
		for size := 1; size <= len(answer); size++ {
			var r response
			for at := 0; at < len(answer); at += size {
				end := min(at+size, len(answer))
				done, err := r.feed([]byte(answer[at:end]))
				if err != nil || done != (end == len(answer)) {
					t.Fatalf("%s, in pieces of %d, at byte %d: done %v, error %v", name, size, end, done, err)
				}
			}
		}
	}
}

func TestWhatIsNotAnAnswerIsAnError(t *testing.T) {
	for _, text := range []string{
		"SSH-2.0-OpenSSH\r\n\r\n",
		"HTTP/1.1 abc\r\n\r\n",
		head + "content-length: -1\r\n\r\n",
		head + "\r\n",
		head + "content-length: 1\r\n\r\nab",
		head + "transfer-encoding: chunked\r\n\r\nzz\r\n",
		head + "transfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
	} {
		var r response
		if _, err := r.feed([]byte(text)); err == nil {
			t.Errorf("%q was taken for an answer", text)
		}
	}
}

func TestACloseIsNoticed(t *testing.T) {
	for text, closing := range map[string]bool{
		head + "content-length: 0\r\n\r\n":                      false,
		head + "content-length: 0\r\nConnection: Close\r\n\r\n": true,
		"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n":          true,
	} {
		var r response
		if done, err := r.feed([]byte(text)); !done || err != nil || r.closing != closing {
			t.Errorf("%q: done %v, error %v, closing %v", text, done, err, r.closing)
		}
	}
}

func TestACallThatFailedIsNoGoodAnswerWhateverItsStatus(t *testing.T) {
	for text, kind := range map[string]string{
		head + "content-length: 0\r\n\r\n":                               "",
		head + "grpc-status: 0\r\ncontent-length: 0\r\n\r\n":             "",
		head + "grpc-status: 14\r\ncontent-length: 0\r\n\r\n":            "grpc-14",
		"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n":                   "503",
		"HTTP/1.1 503 No\r\ngrpc-status: 8\r\nContent-Length: 0\r\n\r\n": "grpc-8",
	} {
		var r response
		if done, err := r.feed([]byte(text)); !done || err != nil || r.isGood() != (kind == "") {
			t.Errorf("%q: done %v, error %v, good %v", text, done, err, r.isGood())
		}
		if kind != "" && r.kind() != kind {
			t.Errorf("%q is %q, and not %q", text, r.kind(), kind)
		}
	}
}
