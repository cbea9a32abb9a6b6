# To pin the bases by digest as well, append @sha256:… as `docker buildx imagetools inspect IMAGE` prints it.
FROM --platform=$BUILDPLATFORM golang:1.26.8-trixie AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY api api
COPY internal internal
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags="-s -w" -o /sfmctoken-operator ./cmd

FROM gcr.io/distroless/static-debian13:nonroot
COPY --from=build /sfmctoken-operator /sfmctoken-operator
USER 65532:65532
ENTRYPOINT ["/sfmctoken-operator"]
