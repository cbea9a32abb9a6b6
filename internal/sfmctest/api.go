package sfmctest

import (
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
	a := notAuthorized
	if alive {
		a = platformRefusal(http.StatusOK, `{"enterprise":{"id":`+token.enterpriseID+`},"organization":{"id":`+token.accountID+`},"user":{"id":`+userID+`}}`)
	}
	(&Fault{}).send(w, r, a)
}

const (
	soapOpen  = `<?xml version="1.0" encoding="utf-8"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body>`
	soapClose = `</soap:Body></soap:Envelope>`
)

// serveSOAP looks for the token where SOAP clients put it, in the header element
// fueloauth, and answers with the business unit. A dead token gets status 500
// and the faultstring "Token Expired" (seen live).
func (s *Server) serveSOAP(w http.ResponseWriter, r *http.Request) {
	token, alive := s.tokens.find(fuelOAuth(io.LimitReader(r.Body, requestLimit)), s.clock.Now())
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	if !alive {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, soapOpen+`<soap:Fault><faultcode>soap:Server</faultcode><faultstring>Token Expired</faultstring></soap:Fault>`+soapClose)
		return
	}
	_, _ = fmt.Fprintf(w, `%s<RetrieveResponseMsg xmlns="http://exacttarget.com/wsdl/partnerAPI"><OverallStatus>OK</OverallStatus><Results><Client><ID>%s</ID></Client></Results></RetrieveResponseMsg>%s`,
		soapOpen, token.accountID, soapClose)
}

func fuelOAuth(body io.Reader) string {
	decoder := xml.NewDecoder(body)
	for {
		element, err := decoder.Token()
		if err != nil {
			return ""
		}
		start, ok := element.(xml.StartElement)
		if !ok || start.Name.Local != "fueloauth" {
			continue
		}
		var text string
		if decoder.DecodeElement(&text, &start) != nil {
			return ""
		}
		return strings.TrimSpace(text)
	}
}
