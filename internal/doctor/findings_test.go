package doctor_test

import (
	"encoding/json"
	"testing"

	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// Pipelines read this: no field goes, and none changes what it means.
func TestFindingsHaveAStableSchema(t *testing.T) {
	g := NewWithT(t)
	ill, well := aToken(), aToken()
	ill.Status.Conditions = append(ill.Status.Conditions, says("Ready=False RequestRefused: status 401"))
	well.Namespace, well.Status.Conditions = "elsewhere", append(well.Status.Conditions, says(valid))
	cluster := pods(aPod("legacy", withToken(target)), madeBy("ReplicaSet", "app-6d5f9", ""))
	cluster.Jobs = []batchv1.Job{{ObjectMeta: named("brief"), Spec: job(60)}}
	encode := func(findings doctor.Findings) string {
		text, err := json.Marshal(findings)
		g.Expect(err).NotTo(HaveOccurred())
		return string(text)
	}
	g.Expect(encode(doctor.Examine([]v1alpha1.SFMCToken{*ill, *well}, cluster, noon))).To(MatchJSON(`{
		"problems": 3, "hints": 1,
		"sfmcTokens": [{"namespace": "marketing", "name": "journeys",
			"problems": [{"what": "Not ready, RequestRefused", "message": "status 401"}],
			"readers": [
				{"secret": "journeys-token", "kind": "Job", "names": ["brief"], "container": "container app",
				 "how": "environment variable TOKEN", "isHint": true,
				 "advice": "It ends before the token that it begins with, by activeDeadlineSeconds: nothing needs to be done."},
				{"secret": "journeys-token", "kind": "Pod", "names": ["legacy"], "container": "container app",
				 "how": "environment variable TOKEN", "isHint": false,
				 "advice": "It misses every refresh, and gets 401 when the token that it began with is over. Mount Secret journeys-token as a volume, without subPath, and read the file for each call."},
				{"secret": "journeys-token", "kind": "Pod", "names": ["made"], "controller": "ReplicaSet app-6d5f9", "container": "container app",
				 "how": "environment variable TOKEN", "isHint": false,
				 "advice": "It misses every refresh, and gets 401 when the token that it began with is over. Mount Secret journeys-token as a volume, without subPath, and read the file for each call."}
			]}],
		"looked": {"sfmcTokens": 2, "pods": 2}, "unknown": []}`))
	g.Expect(encode(doctor.Examine(nil, pods(), noon))).To(MatchJSON(
		`{"problems": 0, "hints": 0, "sfmcTokens": [], "looked": {"sfmcTokens": 0, "pods": 0}, "unknown": []}`))
}

func TestReadersThatFindEachNewTokenAreKnown(t *testing.T) {
	g := NewWithT(t)
	found := doctor.FreshReaders(aToken(), pods(
		aPod("volume", mounted(secretVolume(target), corev1.VolumeMount{})),
		aPod("projected", mounted(projected(target), corev1.VolumeMount{})),
		aPod("once", mounted(secretVolume(target), subPath("access_token"))),
		aPod("env", withToken(target)),
		aPod("another", mounted(secretVolume("other"), corev1.VolumeMount{})),
		aPod("what-stays", mounted(secretVolume(target, item("rest_instance_url", "host")), corev1.VolumeMount{})),
	))
	var said []string
	for _, reader := range found {
		said = append(said, reader.Who()+": "+reader.How)
	}
	g.Expect(said).To(Equal([]string{"Pod volume, container app: volume at /sfmc", "Pod projected, container app: volume at /sfmc"}))
}
