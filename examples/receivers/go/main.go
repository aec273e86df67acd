// Receive callbacks: CALLBACK_SECRET=whsec_… go run . [PORT]
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const maxBytes = 1 << 20

var seen sync.Map // in your service: a database table with a unique column

type callback struct {
	Type string
	Data struct {
		TaskUUID string `json:"task_uuid"`
		Vocals   struct{ URL string }
		Error    struct{ Code string }
	}
}

func receive(webhook *standardwebhooks.Webhook) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		// Verify these bytes: parsing and encoding them changes them.
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, maxBytes))
		if err != nil {
			http.Error(response, "", http.StatusRequestEntityTooLarge)
			return
		}
		if err := webhook.Verify(body, request.Header); err != nil {
			http.Error(response, "", http.StatusUnauthorized)
			return
		}
		id := request.Header.Get("webhook-id")
		if _, done := seen.Load(id); !done {
			if err := handle(body); err != nil {
				http.Error(response, "", http.StatusInternalServerError)
				return
			}
			seen.Store(id, true) // last, so that a callback whose handling failed is sent again
		}
		response.WriteHeader(http.StatusNoContent)
	}
}

// handle queues the work, to be done elsewhere: the sender waits for the answer.
func handle(body []byte) error {
	var received callback
	if err := json.Unmarshal(body, &received); err != nil {
		return err
	}
	if received.Type == "uvr.task.succeeded" {
		fmt.Println(received.Data.TaskUUID, "vocals:", received.Data.Vocals.URL)
	} else {
		fmt.Println(received.Data.TaskUUID, "failed:", received.Data.Error.Code)
	}
	return nil
}

func main() {
	port := "8099"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("CALLBACK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Listening at http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, receive(webhook)))
}
