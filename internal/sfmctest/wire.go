package sfmctest

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"time"
)

// connectionKey finds a request's connection in its context.
type connectionKey struct{}

const slowByte = 100 * time.Millisecond

// send writes an answer as far as the fault lets it through.
func (f *Fault) send(w http.ResponseWriter, r *http.Request, a answer) {
	if f.PadTo > len(a.body) {
		a.body = append(bytes.Clone(a.body), bytes.Repeat([]byte(" "), f.PadTo-len(a.body))...)
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	for name, value := range f.Header {
		w.Header().Set(name, value)
	}
	switch f.Wire {
	case CutBody:
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		breakOff()
	case EndlessBody:
		w.WriteHeader(a.status)
		sendEndlessly(r.Context(), w, a.body)
	case SlowBody:
		every := f.Every
		if every <= 0 {
			every = slowByte
		}
		w.WriteHeader(a.status)
		sendSlowly(r.Context(), w, a.body, every)
	default:
		w.WriteHeader(a.status)
		// A client that went away misses its answer; there is nobody else to tell.
		_, _ = w.Write(a.body)
	}
}

func sendEndlessly(ctx context.Context, w http.ResponseWriter, body []byte) {
	blanks := bytes.Repeat([]byte(" "), 4<<10)
	_, err := w.Write(body)
	for err == nil && ctx.Err() == nil {
		_, err = w.Write(blanks)
	}
	breakOff()
}

func sendSlowly(ctx context.Context, w http.ResponseWriter, body []byte, every time.Duration) {
	controller := http.NewResponseController(w)
	for i := range body {
		if i > 0 && !wait(ctx, every) {
			breakOff()
		}
		if _, err := w.Write(body[i : i+1]); err != nil {
			breakOff()
		}
		_ = controller.Flush()
	}
}

// breakOff ends the connection of HTTP/1, or the stream of HTTP/2, so that a
// client can't take what it got for the whole body.
func breakOff() { panic(http.ErrAbortHandler) }

// resetConnection ends a request's connection with a TCP reset. With HTTP/2 the
// other requests on it end too, as they would in real life.
func resetConnection(r *http.Request) {
	connection, _ := r.Context().Value(connectionKey{}).(net.Conn)
	if encrypted, ok := connection.(*tls.Conn); ok {
		connection = encrypted.NetConn()
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}
	breakOff()
}

// wait tells whether the time passed before the client went away.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
