package main

import (
	"cmp"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/kubernetes/scheme"
	appsv1client "k8s.io/client-go/kubernetes/typed/apps/v1"
	authorizationv1client "k8s.io/client-go/kubernetes/typed/authorization/v1"
	batchv1client "k8s.io/client-go/kubernetes/typed/batch/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

type (
	tokenClient = *gentype.ClientWithList[*v1alpha1.SFMCToken, *v1alpha1.SFMCTokenList]
	grantClient = *gentype.ClientWithList[*v1alpha1.SFMCAccessGrant, *v1alpha1.SFMCAccessGrantList]
)

// clients are for the kinds that the commands work with.
type clients struct {
	tokens       func(namespace string) tokenClient
	grants       func(namespace string) grantClient
	core         corev1client.CoreV1Interface
	apps         appsv1client.AppsV1Interface
	batch        batchv1client.BatchV1Interface
	coordination coordinationv1client.CoordinationV1Interface
	reviews      authorizationv1client.SelfSubjectAccessReviewsGetter
	discovery    *discovery.DiscoveryClient
	secrets      metadata.Getter // has the record of a token, an annotation; the token itself stays in the cluster
	namespaces   metadata.Getter // for their labels
}

func (p *plugin) connect() error {
	config, err := p.connection.ToRESTConfig()
	if err != nil {
		return fmt.Errorf("find a cluster: %w", err)
	}
	config.UserAgent = version.Get().UserAgent("kubectl-sfmctoken")
	config.QPS = -1 // a handful of requests
	if !p.allNamespaces {
		if p.namespace, _, err = p.connection.ToRawKubeConfigLoader().Namespace(); err != nil {
			return fmt.Errorf("find a namespace: %w", err)
		}
	}
	if p.clients, err = newClients(config); err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	return nil
}

func newClients(config *rest.Config) (clients, error) {
	core, coreErr := corev1client.NewForConfig(config)
	apps, appsErr := appsv1client.NewForConfig(config)
	batch, batchErr := batchv1client.NewForConfig(config)
	coordination, coordinationErr := coordinationv1client.NewForConfig(config)
	authorization, authorizationErr := authorizationv1client.NewForConfig(config)
	served, servedErr := discovery.NewDiscoveryClientForConfig(config)
	objects, objectsErr := metadata.NewForConfig(config)
	schemeErr := v1alpha1.AddToScheme(scheme.Scheme)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &v1alpha1.GroupVersion
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	own, ownErr := rest.RESTClientFor(config)
	if err := cmp.Or(coreErr, appsErr, batchErr, coordinationErr, authorizationErr, servedErr, objectsErr, schemeErr,
		ownErr); err != nil {
		return clients{}, err
	}
	return clients{
		core: core, apps: apps, batch: batch, coordination: coordination, reviews: authorization, discovery: served,
		secrets:    objects.Resource(corev1.SchemeGroupVersion.WithResource("secrets")),
		namespaces: objects.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")),
		tokens: func(namespace string) tokenClient {
			return gentype.NewClientWithList("sfmctokens", own, scheme.ParameterCodec, namespace,
				func() *v1alpha1.SFMCToken { return &v1alpha1.SFMCToken{} },
				func() *v1alpha1.SFMCTokenList { return &v1alpha1.SFMCTokenList{} })
		},
		grants: func(namespace string) grantClient {
			return gentype.NewClientWithList("sfmcaccessgrants", own, scheme.ParameterCodec, namespace,
				func() *v1alpha1.SFMCAccessGrant { return &v1alpha1.SFMCAccessGrant{} },
				func() *v1alpha1.SFMCAccessGrantList { return &v1alpha1.SFMCAccessGrantList{} })
		},
	}, nil
}
