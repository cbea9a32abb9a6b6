package sfmctest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// userID is the API user of every package; only its presence is documented.
const userID = "720000001"

// serveTokenContext is the cheapest REST call that tells whom a token acts for.
func (s *Server) serveTokenContext(w http.ResponseWriter, r *http.Request) {
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	token, alive := s.tokens.find(bearer, s.clock.Now())
	s.calls.count(r, "rest", token, alive)
	a := notAuthorized
	if alive {
		a = platformRefusal(http.StatusOK, `{"enterprise":{"id":`+token.enterpriseID+`},"organization":{"id":`+token.accountID+`},"user":{"id":`+userID+`}}`)
	}
	(&Fault{}).send(w, r, a)
}

// soapRequest is what the server reads of a SOAP envelope. Clients put the token
// into the header element fueloauth.
type soapRequest struct {
	Token string `xml:"Header>fueloauth"`
	Body  struct {
		Retrieve *struct {
			ObjectType string `xml:"RetrieveRequest>ObjectType"`
		} `xml:"RetrieveRequestMsg"`
	} `xml:"Body"`
}

// serveSOAP answers Retrieve: of a BusinessUnit, with the one that the token acts
// in. Envelope, "Token Expired" and the refusal of an unknown object type are as
// seen live; what a BusinessUnit looks like is documented.
func (s *Server) serveSOAP(w http.ResponseWriter, r *http.Request) {
	var request soapRequest
	// What is no XML has no token.
	_ = xml.NewDecoder(io.LimitReader(r.Body, requestLimit)).Decode(&request)
	token, alive := s.tokens.find(strings.TrimSpace(request.Token), s.clock.Now())
	s.calls.count(r, "soap", token, alive)
	retrieve := request.Body.Retrieve
	switch {
	case !alive:
		sendFault(w, `<faultcode xmlns:q0="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd">q0:Security</faultcode><faultstring>Token Expired</faultstring>`)
	case retrieve == nil: // of no live answer
		sendFault(w, `<faultcode>soap:Client</faultcode><faultstring>This stand-in answers Retrieve alone.</faultstring>`)
	case retrieve.ObjectType == "BusinessUnit":
		sendRetrieved(w, "OK", `<Results xsi:type="BusinessUnit"><Client><ID>`+token.accountID+`</ID></Client><PartnerKey xsi:nil="true" /><ID>`+
			token.accountID+`</ID><ObjectID xsi:nil="true" /></Results>`)
	default:
		sendRetrieved(w, "Error: Unable to find a handler for object type: "+retrieve.ObjectType+". Object types are case-sensitive, check spelling.", "")
	}
}

func sendFault(w http.ResponseWriter, fault string) {
	sendEnvelope(w, http.StatusInternalServerError, "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault", "<soap:Fault>"+fault+"</soap:Fault>")
}

func sendRetrieved(w http.ResponseWriter, overall, results string) {
	var status bytes.Buffer
	_ = xml.EscapeText(&status, []byte(overall)) // never fails with a Buffer
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	sendEnvelope(w, http.StatusOK, "RetrieveResponse", `<RetrieveResponseMsg xmlns="http://exacttarget.com/wsdl/partnerAPI"><OverallStatus>`+
		status.String()+`</OverallStatus><RequestID>`+hex.EncodeToString(id)+`</RequestID>`+results+`</RetrieveResponseMsg>`)
}

func sendEnvelope(w http.ResponseWriter, status int, action, body string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"`+
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing">`+
		`<soap:Header><wsa:Action>%s</wsa:Action></soap:Header><soap:Body>%s</soap:Body></soap:Envelope>`, action, body)
}
