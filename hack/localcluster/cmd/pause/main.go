// Command pause holds the namespaces of a pod: it waits to be told to end. A node
// runs it from an image that is made here, so that no registry is asked.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
}
