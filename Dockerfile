# syntax=docker/dockerfile:1
# One binary on a small Debian. The first stage builds it, the second holds nothing else.
#
#   docker build -t zhilian-sync .
#   docker run -p 8000:8000 -v zhilian-data:/data zhilian-sync
#
# Where no container engine exists, scripts/check-dockerfile runs these steps in a clean Debian root.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --release --locked && cp target/release/zhilian-sync /usr/local/bin/zhilian-sync

FROM debian:bookworm-slim
# Certificates: vendors and databases are reached over TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin zhilian \
    && install -d -o zhilian -g zhilian -m 0700 /data
COPY --from=build /usr/local/bin/zhilian-sync /usr/local/bin/zhilian-sync
# The database and, beside it, the master key: keep this volume, and keep it private.
VOLUME /data
WORKDIR /data
USER 10001
ENV DATABASE_URL=sqlite:/data/zhilian.db ZHILIAN__SERVER__ADDRESS=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["zhilian-sync", "health"]
ENTRYPOINT ["zhilian-sync"]
CMD ["serve"]
