package problem

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

func TestNoErrorIsNoProblem(t *testing.T) {
	NewWithT(t).Expect(Of(nil)).To(BeNil())
}

func TestAnErrorWithoutAMeaningIsOneOfTheKubernetesAPI(t *testing.T) {
	g := NewWithT(t)
	for _, err := range []error{errAny, fmt.Errorf("read the target Secret: %w", errAny)} {
		got := Of(err)
		g.Expect(got.Reason).To(Equal(v1alpha1.ReasonKubernetesAPIError))
		g.Expect(got.Actor).To(Equal(Operator))
		g.Expect(got.Revokes).To(BeFalse())
		g.Expect(got).To(And(MatchError(err.Error()), MatchError(errAny)))
	}
}

func TestAProblemKeepsItsMeaningHoweverItIsWrapped(t *testing.T) {
	g := NewWithT(t)
	denied := New(v1alpha1.ReasonAccessDenied, errAny)
	denied.Revokes, denied.Failures = true, 3
	var err error = denied
	for range 3 {
		g.Expect(Of(err)).To(BeIdenticalTo(denied))
		g.Expect(err).To(And(MatchError(HaveSuffix(errAny.Error())), MatchError(errAny)))
		err = errors.Join(fmt.Errorf("in a step: %w", err))
	}
}

func TestWhatIsSupersededIsNobodysToMend(t *testing.T) {
	g := NewWithT(t)
	superseded := Of(fmt.Errorf("write the status: %w", Superseded(errAny, FirstRetry)))
	g.Expect(superseded.Actor).To(Equal(Nobody))
	g.Expect(superseded).To(And(MatchError(errAny.Error()), MatchError(errAny)))
}

func TestEveryReasonIsMendedByWhomItsConditionNames(t *testing.T) {
	g := NewWithT(t)
	actors := map[v1alpha1.ProblemReason]Actor{}
	for reason := range rules {
		actors[reason] = New(reason, errAny).Actor
	}
	g.Expect(actors).To(Equal(actorsOfAPI(g)))
}

// actorsOfAPI are the reasons in the API, each with who acts, by the condition that its group's comment names.
func actorsOfAPI(g *WithT) map[v1alpha1.ProblemReason]Actor {
	const path = "../../api/v1alpha1/sfmctoken_types.go"
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	g.Expect(err).NotTo(HaveOccurred())
	actors := map[v1alpha1.ProblemReason]Actor{}
	for _, declaration := range file.Decls {
		group, isGroup := declaration.(*ast.GenDecl)
		if !isGroup || group.Tok != token.CONST {
			continue
		}
		condition := regexp.MustCompile(`^Reasons of the (\w+) condition`).FindStringSubmatch(group.Doc.Text())
		for _, spec := range group.Specs {
			constant := spec.(*ast.ValueSpec)
			name := constant.Names[0].Name
			if !strings.HasPrefix(name, "Reason") {
				continue
			}
			g.Expect(condition).NotTo(BeNil(), "the comment above %s must name its condition", name)
			value, err := strconv.Unquote(constant.Values[0].(*ast.BasicLit).Value)
			g.Expect(err).NotTo(HaveOccurred())
			switch condition[1] {
			case v1alpha1.ConditionStalled:
				actors[v1alpha1.ProblemReason(value)] = Person
			case v1alpha1.ConditionReconciling, v1alpha1.ConditionSuspended:
				actors[v1alpha1.ProblemReason(value)] = Operator
			}
		}
	}
	g.Expect(len(actors)).To(BeNumerically(">=", 13), "the reasons were found")
	return actors
}
