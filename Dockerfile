# To pin it by digest as well, append @sha256:… as `docker buildx imagetools inspect IMAGE` prints it.
FROM --platform=$BUILDPLATFORM golang:1.26.8-trixie AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY api api
COPY internal internal
ARG TARGETOS TARGETARCH
# What git says of the checkout, which isn't copied; see make image.
ARG VERSION REVISION
RUN --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags="-s -w \
      -X github.com/sfmctoken/sfmctoken-operator/internal/version.version=$VERSION \
      -X github.com/sfmctoken/sfmctoken-operator/internal/version.revision=$REVISION" -o /sfmctoken-operator ./cmd

# Nothing but the binary, which has root certificates of its own.
FROM scratch
ARG VERSION REVISION
LABEL org.opencontainers.image.title="sfmctoken-operator" \
      org.opencontainers.image.description="Keeps Salesforce Marketing Cloud access tokens fresh in Secrets" \
      org.opencontainers.image.source="https://github.com/sfmctoken/sfmctoken-operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /sfmctoken-operator /sfmctoken-operator
USER 65532:65532
ENTRYPOINT ["/sfmctoken-operator"]
