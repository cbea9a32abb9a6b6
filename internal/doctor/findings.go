package doctor

import (
	"time"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// Findings are all that there is to say of some SFMCTokens. Their JSON is documented in docs/plugin.md: pipelines read
// it, so fields may come, but none may go or change what it means.
type Findings struct {
	// Problems is how many there are, Hints how many things are only worth knowing.
	Problems int `json:"problems"`
	Hints    int `json:"hints"`
	// SFMCTokens are those of which there is something to say.
	SFMCTokens []TokenFindings `json:"sfmcTokens"`
	// Looked is how much was looked at.
	Looked Looked `json:"looked"`
	// Unknown is what couldn't be looked at, and why.
	Unknown []string `json:"unknown"`
}

// TokenFindings are what there is to say of one SFMCToken.
type TokenFindings struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Problems  []Problem `json:"problems"`
	// Readers miss its refreshes.
	Readers []AdvisedReader `json:"readers"`
}

// AdvisedReader is a reader with what to do about it.
type AdvisedReader struct {
	Reader
	Advice string `json:"advice"`
}

// Looked is how much was looked at.
type Looked struct {
	SFMCTokens int `json:"sfmcTokens"`
	Pods       int `json:"pods"`
}

// Examine returns what there is to say of SFMCTokens.
func Examine(tokens []v1alpha1.SFMCToken, cluster *Cluster, now time.Time) Findings {
	all := Findings{
		SFMCTokens: []TokenFindings{}, Unknown: []string{},
		Looked: Looked{SFMCTokens: len(tokens), Pods: len(cluster.Pods)},
	}
	for i := range tokens {
		token := &tokens[i]
		found := TokenFindings{Namespace: token.Namespace, Name: token.Name,
			Problems: append([]Problem{}, Problems(token, now)...), Readers: []AdvisedReader{}}
		found.Problems = append(found.Problems, Restarted(token, cluster)...)
		all.Problems += len(found.Problems)
		for _, reader := range StaleReaders(token, cluster) {
			if found.Readers = append(found.Readers, AdvisedReader{reader, reader.Advice()}); reader.IsBrief {
				all.Hints++
			} else {
				all.Problems++
			}
		}
		if len(found.Problems)+len(found.Readers) > 0 {
			all.SFMCTokens = append(all.SFMCTokens, found)
		}
	}
	return all
}
