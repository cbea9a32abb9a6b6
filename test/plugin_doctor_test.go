package test

import (
	"encoding/json"
	"testing"

	. "github.com/onsi/gomega"
)

// diagnosis is what docs/plugin.md says of the JSON.
type diagnosis struct {
	Problems, Hints int
	SFMCTokens      []struct {
		Namespace, Name string
		Problems        []struct{ What, Message string }
		Readers         []struct {
			Secret, Kind, Controller, Container, How, Advice string
			Names                                            []string
			IsHint                                           bool
		}
	}
	Looked  struct{ SFMCTokens, Pods int }
	Unknown []string
}

func (s said) diagnosis(w *world) (found diagnosis) {
	w.t.Helper()
	w.Expect(json.Unmarshal([]byte(s.out), &found)).To(Succeed())
	return found
}

func TestTheDoctorsJSONIsAGateForAPipeline(t *testing.T) {
	w := newWorldWithLegacyPod(t)
	robot := w.personWho(rights{w.ns: append(listsReaders, may("list", own, "sfmctokens"))})
	w.Eventually(func() int { return w.pluginAs(robot, "doctor").code }).Should(Equal(1), "the rights have arrived")
	ill := w.pluginAs(robot, "doctor", "-o", "json")
	w.Expect(ill.code).To(Equal(1))
	w.Expect(ill.err).To(BeEmpty())
	found := ill.diagnosis(w)
	w.Expect(found.Problems).To(Equal(1))
	w.Expect(found.SFMCTokens).To(HaveLen(1))
	w.Expect(found.SFMCTokens[0].Name).To(Equal("journeys"))
	w.Expect(found.SFMCTokens[0].Readers).To(HaveLen(1))
	w.Expect(found.SFMCTokens[0].Readers[0].Names).To(Equal([]string{"legacy"}))
	w.Expect(found.SFMCTokens[0].Readers[0].How).To(Equal("environment variable SFMC_TOKEN"))
	w.Expect(found.Looked.SFMCTokens).To(Equal(2))
	w.Expect(found.Looked.Pods).To(Equal(1))
	w.Expect(found.Unknown).To(BeEmpty())

	reader := w.personWho(rights{w.ns: {may("list", own, "sfmctokens"), may("list", "", "pods")}})
	var half said
	w.Eventually(func() int { half = w.pluginAs(reader, "doctor", "-o", "json"); return half.diagnosis(w).Looked.Pods }).Should(Equal(1))
	w.Expect(half.code).To(Equal(2), "not all could be looked at")
	w.Expect(half.diagnosis(w).Problems).To(Equal(1), "what is known is said")
	w.Expect(half.diagnosis(w).Unknown).To(HaveLen(5))
	nobody := w.pluginAs(w.personWho(nil), "doctor", "-o", "json")
	w.Expect(nobody.code).To(Equal(2))
	w.Expect(nobody.diagnosis(w).Unknown).To(ConsistOf(HavePrefix("list SFMCTokens: ")))

	none := w.kubectlSFMCToken("doctor", "-n", "default", "-o", "json")
	w.Expect(none.code).To(Equal(0))
	w.Expect(none.out).To(MatchJSON(`{"problems": 0, "hints": 0, "sfmcTokens": [], "looked": {"sfmcTokens": 0, "pods": 0}, "unknown": []}`))
}
