// Receive callbacks:
// CALLBACK_KEY=whpk_… CALLBACK_AUDIENCE=https://example.com go run . [PORT]
package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxBytes  = 1 << 20
	tolerance = 5 * time.Minute
)

var seen sync.Map // in your service: a database table with a unique column

// stem is nil in a callback whose task did not ask for it.
type stem struct{ URL string }

type callback struct {
	Type     string
	Audience string
	Data     struct {
		TaskUUID     string `json:"task_uuid"`
		Vocals       *stem
		Instrumental *stem
		Error        struct{ Code string }
	}
}

// key is a public key (whpk_) or a shared secret (whsec_): each verifies its own kind alone.
type key struct {
	version  string
	verifies func(signature, content []byte) bool
}

func parse(text string) (key, error) {
	prefix, encoded, _ := strings.Cut(text, "_")
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
	switch {
	case err == nil && prefix == "whpk" && len(raw) == ed25519.PublicKeySize:
		return key{"v1a", func(signature, content []byte) bool {
			return ed25519.Verify(raw, content, signature)
		}}, nil
	case err == nil && prefix == "whsec" && len(raw) >= 24:
		return key{"v1", func(signature, content []byte) bool {
			sum := hmac.New(sha256.New, raw)
			sum.Write(content)
			return hmac.Equal(signature, sum.Sum(nil))
		}}, nil
	}
	return key{}, errors.New("CALLBACK_KEY must hold whpk_… or whsec_… keys")
}

func verified(keys []key, header http.Header, body []byte) bool {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseUint(timestamp, 10, 40)
	if id == "" || err != nil || time.Since(time.Unix(int64(seconds), 0)).Abs() > tolerance {
		return false
	}
	content := append([]byte(id+"."+timestamp+"."), body...)
	for _, versioned := range strings.Split(header.Get("webhook-signature"), " ") {
		version, encoded, _ := strings.Cut(versioned, ",")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		for _, key := range keys {
			if err == nil && key.version == version && key.verifies(signature, content) {
				return true
			}
		}
	}
	return false
}

func receive(keys []key, audience string) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		// Verify these bytes: parsing and encoding them changes them.
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, maxBytes))
		if err != nil {
			http.Error(response, "", http.StatusRequestEntityTooLarge)
			return
		}
		if !verified(keys, request.Header, body) {
			http.Error(response, "", http.StatusUnauthorized)
			return
		}
		var received callback
		if err := json.Unmarshal(body, &received); err != nil {
			http.Error(response, "", http.StatusBadRequest)
			return
		}
		if received.Audience != audience { // signed, but for another receiver
			http.Error(response, "", http.StatusUnauthorized)
			return
		}
		id := request.Header.Get("webhook-id")
		if _, done := seen.Load(id); !done {
			handle(received)
			seen.Store(id, true) // last, so that a callback whose handling failed is sent again
		}
		response.WriteHeader(http.StatusNoContent)
	}
}

// handle queues the work, to be done elsewhere: the sender waits for the answer.
func handle(received callback) {
	if received.Type == "uvr.task.succeeded" {
		if received.Data.Vocals != nil {
			fmt.Println(received.Data.TaskUUID, "vocals:", received.Data.Vocals.URL)
		}
		if received.Data.Instrumental != nil {
			fmt.Println(received.Data.TaskUUID, "instrumental:", received.Data.Instrumental.URL)
		}
	} else {
		fmt.Println(received.Data.TaskUUID, "failed:", received.Data.Error.Code)
	}
}

func main() {
	port := "8099"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	var keys []key
	for _, text := range strings.Fields(os.Getenv("CALLBACK_KEY")) {
		parsed, err := parse(text)
		if err != nil {
			log.Fatal(err)
		}
		keys = append(keys, parsed)
	}
	audience := os.Getenv("CALLBACK_AUDIENCE") // never from the request: its sender chooses its Host
	if len(keys) == 0 || audience == "" {
		log.Fatal("CALLBACK_KEY and CALLBACK_AUDIENCE must be set")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Listening at http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, receive(keys, audience)))
}
