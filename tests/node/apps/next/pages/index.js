import cluster from 'node:cluster';

export const getServerSideProps = () => {
  const { pid, env } = process;
  return { props: { who: `pid ${pid} slot ${env.NODE_APP_INSTANCE} worker ${cluster.worker?.id}` } };
};

export default function Home({ who }) {
  return <p>{who}</p>;
}
