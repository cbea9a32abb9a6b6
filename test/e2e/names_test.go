package e2e

import (
	"net"
	"net/netip"
	"strings"

	. "github.com/onsi/gomega"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
)

// serveNames is the DNS of the node: Marketing Cloud's names lead to what this program listens with, and there are no
// others.
func (c *clusterAccess) serveNames() {
	c.t.Helper()
	server, err := net.ListenPacket("udp", net.JoinHostPort(localcluster.NodeAddress, "53"))
	c.Expect(err).NotTo(HaveOccurred())
	c.t.Cleanup(func() { _ = server.Close() })
	go func() {
		query := make([]byte, 1500)
		for {
			length, from, err := server.ReadFrom(query)
			if err != nil {
				return // closed
			}
			if answer, err := answerName(query[:length]); err == nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
}

func answerName(query []byte) ([]byte, error) {
	var asked dnsmessage.Message
	if err := asked.Unpack(query); err != nil || len(asked.Questions) == 0 {
		return nil, err
	}
	question := asked.Questions[0]
	answer := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: asked.ID, Response: true, RecursionDesired: asked.RecursionDesired, RecursionAvailable: true},
		Questions: asked.Questions[:1],
	}
	switch {
	case !strings.HasSuffix(strings.ToLower(question.Name.String()), ".marketingcloudapis.com."):
		answer.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA:
		answer.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(localcluster.NodeAddress).As4()},
		}}
	}
	return answer.Pack()
}
