/** The frame of the page: sign-in, navigation, and the view that the address names. */

import { useEffect, useState } from "preact/hooks";
import { api, dataOf, type Schemas } from "./api/client";
import { asProblem, type Problem } from "./api/problem";
import { apiKey, chooseProject, chosenProject, forgetKey, onSignedOut } from "./api/session";
import { ProblemBox } from "./components/basics";
import { useStored } from "./hooks";
import { ComparePage } from "./pages/compare";
import { DatasetPage, DatasetsPage } from "./pages/datasets";
import { ExperimentPage, ExperimentsPage } from "./pages/experiments";
import { JobPage } from "./pages/job";
import { JobsPage } from "./pages/jobs";
import { ModelPage, ModelsPage } from "./pages/models";
import { ProjectPage } from "./pages/project";
import { SignIn } from "./pages/sign_in";
import { SubmitPage } from "./pages/submit";
import { WorkersPage } from "./pages/workers";
import { address, type Route, useRoute } from "./router";

type Me = Schemas["Me"];
const PAGES: [string, string][] = [
  ["jobs", "Jobs"],
  ["experiments", "Experiments"],
  ["datasets", "Datasets"],
  ["models", "Models"],
  ["submit", "Submit"],
  ["workers", "Workers"],
  ["project", "Project"],
];
const THEMES = ["system", "light", "dark"];

export function App() {
  const route = useRoute();
  const [me, setMe] = useState<Me | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [asked, setAsked] = useState(false);
  const [theme, setTheme] = useStored("trainkit-theme", "system");

  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const load = async () => {
    try {
      setMe(dataOf(await api.GET("/v1/me")));
      setProblem(null);
    } catch (error) {
      const found = asProblem(error);
      if (found.status === 404 && chosenProject()) {
        chooseProject(null); // the person is not in it any more
        return void load();
      }
      setMe(null);
      // without a key there is nothing wrong yet
      setProblem(found.status === 401 && !apiKey() ? null : found);
    }
    setAsked(true);
  };
  useEffect(() => {
    void load();
    return onSignedOut(() => setMe(null));
  }, []);

  if (!asked) return null;
  if (!me) return <SignIn problem={problem} onSignedIn={load} />;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        To the content
      </a>
      <header class="top">
        <a class="brand" href={address(["jobs"])}>
          trainkit
        </a>
        <nav aria-label="Pages">
          {PAGES.map(([name, title]) => (
            <a key={name} href={address([name])} aria-current={(route.path[0] ?? "jobs") === name ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <span class="who">
          <ProjectChoice me={me} />
          <label class="theme">
            <span class="sr">Theme</span>
            <select value={theme} onChange={(event) => setTheme(event.currentTarget.value)}>
              {THEMES.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <button class="quiet" onClick={() => void signOut()}>
            Sign out
          </button>
        </span>
      </header>
      <main id="main" tabIndex={-1}>
        {me.project || me.projects.length < 2 ? <View route={route} me={me} /> : <p>Choose a project above.</p>}
      </main>
    </>
  );
}

/** The project's name; of several a choice, which is kept in the browser. */
function ProjectChoice({ me }: { me: Me }) {
  if (me.key || me.projects.length < 2) return <>{me.project?.name}</>;
  const choose = (name: string) => {
    chooseProject(name);
    location.reload();
  };
  return (
    <label class="theme">
      <span class="sr">Project</span>
      <select value={me.project?.name ?? ""} onChange={(event) => choose(event.currentTarget.value)}>
        {!me.project && <option value="">Choose a project</option>}
        {me.projects.map((one) => (
          <option key={one.id}>{one.name}</option>
        ))}
      </select>
    </label>
  );
}

async function signOut(): Promise<void> {
  if (apiKey()) return forgetKey();
  await api.POST("/v1/auth/logout").catch(() => undefined);
  location.reload();
}

function View({ route, me }: { route: Route; me: Me }) {
  const [page = "jobs", id] = route.path;
  const mayWrite = me.role === "developer" || me.role === "admin";
  if (page === "jobs" && id) return <JobPage key={id} id={id} route={route} mayWrite={mayWrite} />;
  if (page === "jobs") return <JobsPage route={route} mayWrite={mayWrite} />;
  if (page === "compare") return <ComparePage route={route} />;
  if (page === "experiments" && id) return <ExperimentPage key={id} id={id} mayWrite={mayWrite} />;
  if (page === "experiments") return <ExperimentsPage />;
  if (page === "datasets" && id) return <DatasetPage key={id} id={id} />;
  if (page === "datasets") return <DatasetsPage mayWrite={mayWrite} />;
  if (page === "models" && id) return <ModelPage key={id} id={id} mayWrite={mayWrite} />;
  if (page === "models") return <ModelsPage />;
  if (page === "submit") return <SubmitPage route={route} mayWrite={mayWrite} />;
  if (page === "workers") return <WorkersPage />;
  if (page === "project") return <ProjectPage me={me} />;
  return (
    <ProblemBox
      problem={{ title: "No such page", status: 404, code: "page", detail: `There is no page ${page}.`, errors: [] }}
    />
  );
}
